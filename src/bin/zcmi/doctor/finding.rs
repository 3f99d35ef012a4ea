//! What a check finds.

use serde::Serialize;

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The check, a word of `docs/tool.md`.
    pub(super) check: &'static str,
    pub(super) level: Level,
    /// What was found.
    pub(super) what: String,
    /// Why it matters; none where all is well.
    pub(super) why: Option<String>,
    /// The command that mends it, if there is one.
    pub(super) fix: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// Good to know; what is missing may not be needed.
    Notice,
    /// It cannot be found out.
    Unknown,
    /// It will make something fail, or slow.
    Problem,
}

impl Finding {
    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, what: what.into(), why: None, fix: None }
    }

    pub(super) fn unknown(check: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { check, level: Level::Unknown, what: what.into(), why: Some(why.into()), fix: None }
    }

    pub(super) fn notice(check: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { level: Level::Notice, ..Self::unknown(check, what, why) }
    }

    pub(super) fn problem(check: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { level: Level::Problem, ..Self::unknown(check, what, why) }
    }

    /// With the command that mends it.
    pub(super) fn fix(self, command: impl Into<String>) -> Self {
        Self { fix: Some(command.into()), ..self }
    }
}
