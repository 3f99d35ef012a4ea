//! What a cache has done, in numbers.

/// Counts of a registration cache since it was made, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Uses that found their memory registered.
    pub hits: u64,
    /// Uses that registered their memory.
    pub misses: u64,
    /// Of the misses, those that could not be kept.
    pub uncached: u64,
    /// Registrations given up because others needed the room, on demand, or because a later one contains them.
    pub evictions: u64,
    /// Registrations given up because nobody else owned the memory any more.
    pub dropped: u64,
    /// Registrations that the device did not give up; their memory is out of use for ever.
    pub quarantined: u64,
    /// Registrations that are kept or being made or given up.
    pub entries: usize,
    /// The bytes that they pin, in whole pages.
    pub bytes: usize,
}
