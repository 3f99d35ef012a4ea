//! A configuration, setting by setting.

use super::Config;
use crate::Result;

/// Made by [`Config::builder`]; a method for each setting.
///
/// ```
/// use std::time::Duration;
/// use zcmi::{Config, Polling};
///
/// let config = Config::builder().polling(Polling::Event).connect_timeout(Duration::from_secs(1)).build()?;
/// assert_eq!(config.receive_depth, 64);
/// let error = Config::builder().receive_depth(0).build().expect_err("no room for messages");
/// assert!(error.to_string().contains("receive_depth is 0, must be 1 to 8192"));
/// # Ok::<(), zcmi::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ConfigBuilder {
    pub(super) config: Config,
}

impl ConfigBuilder {
    /// Replaces what the environment has variables for; see [`Config::from_env`].
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported), with the variable, its value and what is allowed.
    pub fn environment(mut self) -> Result<Self> {
        super::environment::apply(&mut self.config, std::env::vars_os())?;
        Ok(self)
    }

    /// The configuration, checked.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if a setting is out of bounds; the error names it.
    pub fn build(self) -> Result<Config> {
        self.config.validate()?;
        Ok(self.config)
    }
}
