//! `zcmi doctor HOST` for people.

use super::{Report, Step};
use crate::output::{Colour, Output};

pub(super) fn render(report: &Report, output: Output) -> String {
    let mut text: String = report.steps.iter().map(|step| line(step, output)).collect();
    for way in &report.passed_over {
        text += &format!("{}  passed over {way}\n", output.colour(Colour::Yellow, "notice "));
    }
    let (colour, verdict) = match report.transport {
        Some(transport) if report.ok => (Colour::Green, format!("{} works, over {transport}.", report.address)),
        _ => (Colour::Red, format!("{} does not work.", report.address)),
    };
    text + &output.colour(colour, &verdict) + "\n"
}

fn line(step: &Step, output: Output) -> String {
    let (mark, colour) = if step.ok { ("ok     ", Colour::Green) } else { ("PROBLEM", Colour::Red) };
    let told = step.error.as_ref().or(step.detail.as_ref()).map_or("", String::as_str);
    let milliseconds = step.microseconds as f64 / 1000.0;
    let mut text = format!("{}  {:8}{milliseconds:>9.3} ms  {told}", output.colour(colour, mark), step.step);
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(hint) = &step.hint {
        text += &format!("{:31}{hint}\n", "");
    }
    text
}
