//! What the cache promises, one by one and in random sequences against a model.

mod arena;
mod fork;
mod model;
mod planted;
mod property;
mod regression;
mod speed_of_lookup;
