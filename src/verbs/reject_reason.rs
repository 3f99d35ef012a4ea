//! Why a connect request was refused.

use std::fmt;

/// Defines an open enum of numbers with their explanations.
macro_rules! reasons {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $explanation:literal])+ $reason:ident = $number:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[doc = $explanation])+ $reason,)+
            /// A number that this version does not name.
            Other(u32),
        }

        impl $name {
            /// The reason of a number.
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$reason,)+
                    other => Self::Other(other),
                }
            }

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self {
                    $(Self::$reason => $number,)+
                    Self::Other(number) => number,
                }
            }

            /// What it means, in a sentence without its full stop.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$reason => concat!($($explanation),+).trim_ascii(),)+
                    Self::Other(_) => "a reason that this version does not know",
                }
            }

            #[cfg(test)]
            const ALL: &'static [Self] = &[$(Self::$reason,)+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} (reason {})", self.explanation(), self.number())
            }
        }
    };
}

reasons! {
    /// Why a connect request was rejected (IBTA 1.4, table 106). The peer's program gives
    /// [`Consumer`](Self::Consumer) or [`VendorOptionNotSupported`](Self::VendorOptionNotSupported); all
    /// others come from its kernel or the network. An unknown reason is a value.
    RejectReason {
        /// the peer's program refused
        Consumer = 28,
        /// the local communication id is already in use
        DuplicateCommunicationId = 30,
        /// the alternate flow label is invalid
        InvalidAlternateFlowLabel = 33,
        /// the alternate global identifier is invalid
        InvalidAlternateGid = 18,
        /// the alternate hop limit is invalid
        InvalidAlternateHopLimit = 22,
        /// the alternate local identifier is invalid
        InvalidAlternateLid = 19,
        /// the alternate packet rate is invalid
        InvalidAlternatePacketRate = 23,
        /// the alternate service level is invalid
        InvalidAlternateServiceLevel = 20,
        /// the alternate traffic class is invalid
        InvalidAlternateTrafficClass = 21,
        /// the management class version is not supported
        InvalidClassVersion = 31,
        /// the communication id is invalid
        InvalidCommunicationId = 6,
        /// the communication id is of another connection
        InvalidCommunicationInstance = 7,
        /// the flow label is invalid
        InvalidFlowLabel = 32,
        /// the primary global identifier is invalid
        InvalidGid = 12,
        /// the hop limit is invalid
        InvalidHopLimit = 16,
        /// the primary local identifier is invalid
        InvalidLid = 13,
        /// the path MTU cannot be supported
        InvalidMtu = 26,
        /// the packet rate is invalid
        InvalidPacketRate = 17,
        /// the RNR retry count is invalid
        InvalidRnrRetryCount = 29,
        /// nobody listens at that port
        InvalidServiceId = 8,
        /// the service level is invalid
        InvalidServiceLevel = 14,
        /// the traffic class is invalid
        InvalidTrafficClass = 15,
        /// the transport type is not served there
        InvalidTransportType = 9,
        /// there is no end-to-end context
        NoEndToEndContext = 2,
        /// there is no queue pair left
        NoQueuePair = 1,
        /// a resource is missing
        NoResources = 3,
        /// the connection manager is reached through another port
        PortCmRedirect = 24,
        /// the service is reached through another port
        PortRedirect = 25,
        /// the reliable datagram channel does not exist
        RdcNotExistent = 11,
        /// the peer still holds a connection of this queue pair
        StaleConnection = 10,
        /// an answer did not come in time
        Timeout = 4,
        /// the peer cannot serve so many outstanding reads
        TooFewResponderResources = 27,
        /// the request is not supported
        Unsupported = 5,
        /// a vendor's extension was asked for that the peer does not have
        VendorOptionNotSupported = 35,
    }
}

reasons! {
    /// Why a request in port space UDP was not served: the status of the service-id resolution's answer
    /// (IBTA 1.4, 12.11: the status field of SIDR_REP). An unknown status is a value.
    ResolutionRefusal {
        /// there is no queue pair for the service
        NoQueuePair = 3,
        /// the service is elsewhere
        Redirect = 4,
        /// the peer's program refused
        Rejected = 2,
        /// nobody listens at that port
        ServiceNotSupported = 1,
        /// the version of the request is not supported
        VersionNotSupported = 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_value_and_comes_back() {
        for number in (0..300).chain([u32::MAX]) {
            assert_eq!(RejectReason::from_number(number).number(), number);
            assert_eq!(ResolutionRefusal::from_number(number).number(), number);
        }
        assert_eq!(RejectReason::from_number(28), RejectReason::Consumer);
        assert_eq!(RejectReason::from_number(34), RejectReason::Other(34));
    }

    #[test]
    fn reasons_explain_themselves() {
        for reason in RejectReason::ALL {
            assert!(!reason.explanation().is_empty() && !reason.explanation().starts_with(' '), "{reason:?}");
        }
        for reason in ResolutionRefusal::ALL {
            assert!(!reason.explanation().is_empty(), "{reason:?}");
        }
        assert_eq!(RejectReason::InvalidServiceId.to_string(), "nobody listens at that port (reason 8)");
        assert_eq!(RejectReason::Other(99).to_string(), "a reason that this version does not know (reason 99)");
    }
}
