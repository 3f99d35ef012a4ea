//! Settings at random.

use zcmi::{Config, Polling};

use crate::sizes::{LONGEST, Sizes};
use crate::world::random;

/// Sizes that make things happen.
pub(crate) fn config(sizes: Sizes) -> Config {
    let longest = LONGEST as u32 + 4_096;
    Config {
        max_message_size: match sizes {
            Sizes::All => longest,
            Sizes::Moderate => [80, 8_192, longest, longest][random(4) as usize],
        },
        frame_size: [512, 1_000, 4_096, 65_535][random(4) as usize],
        channel_window: [100, 5_000, 256 << 10][random(3) as usize],
        fetch_ahead: [0, 64 << 10, 4 << 20][random(3) as usize],
        coalesce: random(4) > 0,
        receive_depth: [1, 2, 5, 64][random(4) as usize],
        send_depth: [16, 32, 128][random(3) as usize],
        polling: if random(8) == 0 { Polling::Busy } else { Config::default().polling },
        ..Config::default()
    }
}
