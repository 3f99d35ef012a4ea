//! Tests of the settings, and of the page that lists them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::ErrorKind;

const DOCUMENT: &str = include_str!("../../docs/configuration.md");
/// What the table begins with.
const HEAD: &str = "| field | variable | default | allowed | what it is |\n|---|---|---|---|---|\n";

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn from(pairs: &[(&str, &str)]) -> Result<Config> {
    let mut config = Config::default();
    environment::set(&mut config, variables(pairs))?;
    config.validate().expect("what was read is valid");
    Ok(config)
}

fn text_of(row: &table::Row) -> String {
    row.documentation.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

/// The table that `docs/configuration.md` should have.
fn table() -> String {
    let default = Config::default();
    let row = |row: &table::Row| {
        let text = text_of(row);
        // What it is, without the bounds, which have columns.
        let end = text.find(". ").expect("a sentence");
        let what = text[..end].rsplit_once(": ").map_or(&text[..end], |(what, _)| what).to_owned();
        let (default, allowed) = ((row.shown)(&default), (row.allowed)());
        format!("| `{}` | `{}` | {default} | {allowed} | {what} |\n", row.field, row.variable())
    };
    HEAD.to_owned() + &ROWS.iter().map(row).collect::<String>()
}

#[test]
fn the_document_lists_all_settings_as_they_are() {
    let begin = DOCUMENT.find(HEAD).expect("the table");
    let end = DOCUMENT[begin..].find("\n\n").map_or(DOCUMENT.len(), |length| begin + length + 1);
    if std::env::var_os("ZCMI_TEST_WRITE_DOCUMENTS").is_some() {
        let updated = [&DOCUMENT[..begin], &table(), &DOCUMENT[end..]].concat();
        return std::fs::write("docs/configuration.md", updated).expect("written");
    }
    assert!(
        DOCUMENT[begin..end] == table(),
        "docs/configuration.md is stale: `ZCMI_TEST_WRITE_DOCUMENTS=1 cargo test --lib the_document_lists` mends it"
    );
}

#[test]
fn every_field_documents_its_bounds_and_its_default() {
    for row in ROWS.iter().filter(|row| row.field != "cache") {
        let (text, default, allowed) = (text_of(row), (row.shown)(&Config::default()), (row.allowed)());
        assert!(text.contains(&format!("Default {default}")), "{}: Default {default}", row.field);
        assert!(row.field == "polling" || text.contains(&format!(": {allowed}. ")), "{}: {allowed}", row.field);
    }
}

#[test]
fn the_default_and_what_is_shown_of_it_are_the_same() {
    for row in ROWS.iter().filter(|row| row.field != "cache") {
        let mut config = Config::builder().max_message_size(77).receive_depth(77).send_depth(77).backlog(77).config;
        (config.polling, config.coalesce) = (Polling::Busy, false);
        (config.connect_timeout, config.revoke_timeout) = (DAY, DAY);
        let shown = (row.shown)(&Config::default());
        (row.set)(&mut config, &shown).expect("it reads what it shows");
        assert_eq!((row.shown)(&config), shown, "{}", row.field);
    }
}

#[test]
fn a_value_out_of_bounds_is_named() {
    assert!(Config::default().validate().is_ok());
    let spin = Duration::from_secs(2);
    for (config, text) in [
        (Config { max_message_size: 0, ..Default::default() }, "max_message_size is 0 B, must be 1 B to 2 GiB"),
        (Config { receive_depth: 9000, ..Default::default() }, "receive_depth is 9000, must be 1 to 8192"),
        (Config { send_depth: 1, ..Default::default() }, "send_depth is 1, must be 16"),
        (Config { backlog: 0, ..Default::default() }, "backlog is 0, must be"),
        (
            Config { connect_timeout: Duration::ZERO, ..Default::default() },
            "connect_timeout is 0 s, must be 1 ms to 24 h",
        ),
        (Config { revoke_timeout: 2 * DAY, ..Default::default() }, "revoke_timeout is 48 h, must be 0 s"),
        (Config { polling: Polling::Adaptive { spin }, ..Default::default() }, "polling is adaptive:2s, must be busy"),
    ] {
        let error = config.validate().expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn variables_set_what_they_are_called_after() {
    let config = from(&[
        ("ZCMI_MAX_MESSAGE_SIZE", "64KiB"),
        ("ZCMI_RECEIVE_DEPTH", " 32 "),
        ("ZCMI_SEND_DEPTH", ""),
        ("ZCMI_POLLING", "adaptive:50us"),
        ("ZCMI_CONNECT_TIMEOUT", "1500ms"),
        ("ZCMI_REVOKE_TIMEOUT", "0"),
        ("ZCMI_REGISTRATION_CACHE", "64 MiB, 100"),
        ("OTHER_BACKLOG", "1"),
    ]);
    let config = config.expect("valid");
    assert_eq!((config.max_message_size, config.receive_depth, config.send_depth), (65_536, 32, 128));
    assert_eq!(config.polling, Polling::Adaptive { spin: Duration::from_micros(50) });
    assert_eq!((config.connect_timeout, config.revoke_timeout), (Duration::from_millis(1500), Duration::ZERO));
    assert_eq!(config.cache, CacheLimits { bytes: 64 << 20, entries: 100 });
    assert_eq!(config.backlog, 128);
}

#[test]
fn values_are_written_in_several_ways() {
    let size = |text| from(&[("ZCMI_MAX_MESSAGE_SIZE", text)]).map(|config| config.max_message_size).ok();
    assert_eq!(
        ["4096", "4096B", "4KiB", "4 KiB", "1MiB", "1GiB"].map(size).map(Option::unwrap),
        [4096, 4096, 4096, 4096, 1 << 20, 1 << 30]
    );
    let time = |text| from(&[("ZCMI_CONNECT_TIMEOUT", text)]).map(|config| config.connect_timeout.as_millis()).ok();
    assert_eq!(
        ["5s", "5 s", "2min", "1h", "7000us", "7000µs"].map(time).map(Option::unwrap),
        [5000, 5000, 120_000, 3_600_000, 7, 7]
    );
    let polling = |text| from(&[("ZCMI_POLLING", text)]).map(|config| config.polling).ok();
    let adaptive = |spin| Some(Polling::Adaptive { spin: Duration::from_micros(spin) });
    assert_eq!(
        ["busy", "event", "adaptive", "adaptive:0"].map(polling),
        [Some(Polling::Busy), Some(Polling::Event), adaptive(20), adaptive(0)]
    );
    let cache = |text| from(&[("ZCMI_REGISTRATION_CACHE", text)]).map(|config| config.cache).expect("valid");
    assert_eq!(cache("none"), CacheLimits::NONE);
    assert_eq!(cache("1GiB"), CacheLimits { bytes: 1 << 30, ..CacheLimits::default() });
}

#[test]
fn what_is_not_allowed_is_refused_with_variable_value_and_bounds() {
    for (name, value, allowed) in [
        ("ZCMI_RECEIVE_DEPTH", "0", "must be 1 to 8192"),
        ("ZCMI_RECEIVE_DEPTH", "-1", "must be 1 to 8192"),
        ("ZCMI_RECEIVE_DEPTH", "many", "must be 1 to 8192"),
        ("ZCMI_RECEIVE_DEPTH", "99999999999999999999", "must be 1 to 8192"),
        ("ZCMI_BACKLOG", "65536", "must be 1 to 65535"),
        ("ZCMI_MAX_MESSAGE_SIZE", "3GiB", "must be 1 B to 2 GiB"),
        ("ZCMI_MAX_MESSAGE_SIZE", "8KB", "must be 1 B to 2 GiB"),
        ("ZCMI_MAX_MESSAGE_SIZE", "99999999999GiB", "must be 1 B to 2 GiB"),
        ("ZCMI_CONNECT_TIMEOUT", "5", "must be 1 ms to 24 h"),
        ("ZCMI_CONNECT_TIMEOUT", "25h", "must be 1 ms to 24 h"),
        ("ZCMI_CONNECT_TIMEOUT", "99999999999h", "must be 1 ms to 24 h"),
        ("ZCMI_POLLING", "lazy", "must be busy, event, or adaptive[:0s to 1s]"),
        ("ZCMI_POLLING", "busy:1s", "must be busy"),
        ("ZCMI_POLLING", "adaptive:2s", "must be busy"),
        ("ZCMI_REGISTRATION_CACHE", "1GiB,some", "must be none, or bytes[, entries]"),
    ] {
        let error = from(&[(name, value)]).expect_err("not allowed");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(&format!("{name} is {value:?}, {allowed}")), "{error}");
    }
    let bytes = OsString::from_vec(vec![b'5', 0xff]);
    let error = environment::set(&mut Config::default(), [("ZCMI_BACKLOG".into(), bytes)]).expect_err("no text");
    assert!(error.to_string().contains("ZCMI_BACKLOG is \"5\\xFF\", must be 1 to 65535"), "{error}");
}

#[test]
fn what_looks_like_a_setting_and_is_none_is_warned_about() {
    let warnings =
        |name| environment::set(&mut Config::default(), variables(&[(name, "1")])).expect("ignored").join("\n");
    assert!(warnings("ZCMI_RECIEVE_DEPTH").contains("did you mean ZCMI_RECEIVE_DEPTH?"));
    assert!(warnings("ZCMI_SOMETHING_ELSE").contains("docs/configuration.md"));
    assert!(warnings("ZCMI_HOSTNAME").contains("no setting"));
    for of_others in [
        "ZCMI_HOST1",
        "ZCMI_HOST22",
        "ZCMI_REQUIRE_RDMA",
        "ZCMI_TEST_PEER",
        "ZCMI_CACHE",
        "ZCMI_DEBIAN_MIRROR",
        "ZCMI_SOFT_ROCE_SETUP",
        "OTHER_SETTING",
        "zcmi_receive_depth",
    ] {
        assert_eq!(warnings(of_others), "", "{of_others}");
    }
}
