//! From the table of settings: the struct, its defaults, its checks, its builder, and its rows.

use super::Config;

/// One setting, for all that goes through them by name.
pub(super) struct Row {
    pub(super) field: &'static str,
    /// The variable, if it is not the field's name in capitals.
    pub(super) other_variable: &'static [&'static str],
    /// The lines of its documentation.
    #[cfg(test)]
    pub(super) documentation: &'static [&'static str],
    #[cfg(test)]
    pub(super) shown: fn(&Config) -> String,
    pub(super) allowed: fn() -> String,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
}

impl Row {
    pub(super) fn variable(&self) -> String {
        match self.other_variable {
            [variable, ..] => (*variable).to_owned(),
            [] => format!("ZCMI_{}", self.field.to_ascii_uppercase()),
        }
    }
}

macro_rules! settings {
    ($($(#[doc = $documentation:literal])+ $field:ident: $type:ty = $default:expr, $kind:expr $(, $variable:literal)?;)*) => {
        /// How a worker's connections wait and how much memory they use. Start from `Config::default()`, from
        /// [`Config::builder`] or from [`Config::from_env`].
        ///
        /// ```
        /// let config = zcmi::Config { polling: zcmi::Polling::Busy, ..Default::default() };
        /// let worker = zcmi::Worker::new(config)?;
        /// # Ok::<(), zcmi::Error>(())
        /// ```
        #[derive(Clone, Debug)]
        pub struct Config {
            $($(#[doc = $documentation])+ pub $field: $type,)*
            /// Whether pages are shared with peers: only where a program says so, as
            /// [`ConfigBuilder::share_pages_with_peers`](crate::ConfigBuilder::share_pages_with_peers) has to.
            pub shared_pages: $crate::SharedPages,
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($field: $default,)* shared_pages: $crate::SharedPages::default() }
            }
        }

        impl Config {
            /// # Errors
            /// [`Unsupported`](crate::ErrorKind::Unsupported), naming the field and its bounds.
            pub(crate) fn validate(&self) -> $crate::Result<()> {
                $($crate::config::kind::check(&$kind, &self.$field, stringify!($field))?;)*
                $crate::config::check_metrics(self)
            }
        }

        impl $crate::config::ConfigBuilder {
            $($(#[doc = $documentation])+
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.config.$field = $field;
                self
            })*
        }

        /// All settings, in the order in which they are documented.
        const ROWS: &[$crate::config::table::Row] = &[$($crate::config::table::Row {
            field: stringify!($field),
            other_variable: &[$($variable)?],
            #[cfg(test)]
            documentation: &[$($documentation),+],
            #[cfg(test)]
            shown: |config| $crate::config::kind::Kind::show(&$kind, &config.$field),
            allowed: || $crate::config::kind::Kind::<$type>::allowed(&$kind),
            set: |config, text| {
                config.$field = $crate::config::kind::parse(&$kind, text)?;
                Ok(())
            },
        },)*];
    };
}
pub(super) use settings;
