//! Sharing pages with peers asks for a promise, and no configuration is made without it.

use zcmi::{Config, Pool};

fn main() {}

fn choose(pool: &Pool) -> Config {
    Config::builder().share_pages_with_peers(pool).build().unwrap()
}
