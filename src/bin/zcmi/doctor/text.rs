//! `zcmi doctor` for people.

use super::Report;
use super::finding::{Finding, Level};
use crate::output::{Colour, Output};

pub(super) fn render(report: &Report, output: Output) -> String {
    let width = report.findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text: String = report.findings.iter().map(|finding| line(finding, width, output)).collect();
    text += &match report.problems {
        0 => output.colour(Colour::Green, "No problem was found."),
        1 => output.colour(Colour::Red, "1 problem was found."),
        problems => output.colour(Colour::Red, &format!("{problems} problems were found.")),
    };
    text + "\n"
}

/// The level, the check and what was found; below that why it matters and what mends it.
fn line(finding: &Finding, width: usize, output: Output) -> String {
    let (mark, colour) = match finding.level {
        Level::Ok => ("ok     ", Colour::Green),
        Level::Notice => ("notice ", Colour::Yellow),
        Level::Unknown => ("unknown", Colour::Yellow),
        Level::Problem => ("PROBLEM", Colour::Red),
    };
    let mut text = format!("{}  {:width$}  {}\n", output.colour(colour, mark), finding.check, finding.what);
    let indent = mark.len() + 2 + width + 2;
    if let Some(why) = &finding.why {
        text += &format!("{:indent$}{why}\n", "");
    }
    if let Some(fix) = &finding.fix {
        text += &format!("{:indent$}{}\n", "", output.colour(Colour::Bold, &format!("$ {fix}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn what_why_and_fix_stand_below_each_other() {
        let findings = vec![Finding::problem("mtu", "a", "b").fix("c"), Finding::ok("loopback", "d")];
        let report = Report { zcmi: "0", ok: false, problems: 1, findings };
        let text = render(&report, Output::new(Format::Json));
        let expected = "PROBLEM  mtu       a\n                   b\n                   $ c\nok       loopback  d\n1 problem was found.\n";
        assert_eq!(text, expected);
    }
}
