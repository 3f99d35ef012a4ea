//! Settings from environment variables.

use std::ffi::OsString;

use super::{Config, ROWS};
use crate::{Error, ErrorKind, Result};

/// What all variables begin with.
const PREFIX: &str = "ZCMI_";

/// Sets what `variables` say, and warns of those that nobody knows.
pub(super) fn apply(config: &mut Config, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Result<()> {
    for warning in set(config, variables)? {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Sets what `variables` say; answers what should be warned of.
pub(super) fn set(
    config: &mut Config,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let Some(row) = ROWS.iter().find(|row| row.variable() == name) else {
            if !is_of_others(name) {
                warnings.push(unknown(name));
            }
            continue;
        };
        let refused = |allowed: String| {
            let detail = format!("{name} is {value:?}, must be {allowed}");
            Error::new(ErrorKind::Unsupported, "configure").with_detail(detail)
        };
        match value.to_str() {
            Some(text) if text.trim().is_empty() => {}
            Some(text) => (row.set)(config, text).map_err(refused)?,
            None => return Err(refused((row.allowed)())),
        }
    }
    Ok(warnings)
}

/// Whether it is for tests or for the scripts that make a device.
fn is_of_others(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let is_host = rest.strip_prefix("HOST").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    is_host
        || ["TEST_", "REQUIRE_", "SOFT_ROCE_"].iter().any(|prefix| rest.starts_with(prefix))
        || ["CACHE", "DEBIAN_MIRROR"].contains(&rest)
}

fn unknown(name: &str) -> String {
    let nearest = ROWS.iter().map(|row| (distance(name, &row.variable()), row.variable())).min();
    match nearest {
        Some((distance, nearest)) if distance <= 3 => {
            format!("the environment has {name}, which is no setting; did you mean {nearest}?")
        }
        _ => format!("the environment has {name}, which is no setting; docs/configuration.md lists them"),
    }
}

/// Letters to add, leave out or replace until one is the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, wanted) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}
