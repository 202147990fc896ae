//! The answer for somebody in a hurry: the verdict, what decided, then each step.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

use super::answer::{Answer, Enforcer, Outcome, Step};

const WIDTH: usize = 12;

pub(super) fn of(answer: &Answer) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write(&mut out, answer);
    out
}

fn write(out: &mut String, answer: &Answer) -> std::fmt::Result {
    let (word, style) = match (answer.allowed, answer.needs_request) {
        (true, false) => ("ALLOWED", AnsiColor::Green.on_default().bold()),
        (true, true) => ("DEPENDS", AnsiColor::Yellow.on_default().bold()),
        (false, _) => ("REFUSED", AnsiColor::Red.on_default().bold()),
    };
    let asked = answer.request.as_ref();
    let asked = asked.map_or(String::new(), |request| format!(": {request}"));
    writeln!(
        out,
        "{style}{word}{style:#} {} to {}{asked}",
        answer.source, answer.destination
    )?;
    let status = answer.status;
    let status = status.map_or(String::new(), |status| format!(", answered {status}"));
    let by = match answer.enforced_by {
        Enforcer::Node => "; enforced at the node",
        Enforcer::Waypoint => "; enforced at the waypoint",
        Enforcer::Nobody => "",
    };
    writeln!(out, "  {}{status}{by}", answer.verdict)?;
    for reason in &answer.reasons {
        writeln!(out, "  - {reason}")?;
    }
    let bold = Style::new().bold();
    writeln!(out, "\n{bold}The way{bold:#}")?;
    for step in &answer.trace {
        write_step(out, step)?;
    }
    for note in &answer.notes {
        writeln!(out, "\nNote: {note}.")?;
    }
    Ok(())
}

fn write_step(out: &mut String, step: &Step) -> std::fmt::Result {
    let style = match step.outcome {
        Outcome::Pass => AnsiColor::Green.on_default(),
        Outcome::Refuse => AnsiColor::Red.on_default(),
        Outcome::Neutral => Style::new(),
    };
    let dimmed = Style::new().dimmed();
    let name = step.stage.name();
    write!(out, "  {name:<WIDTH$}{style}{}{style:#}", step.text)?;
    match &step.place {
        Some(place) => writeln!(out, "  {dimmed}{place}{dimmed:#}")?,
        None => writeln!(out)?,
    }
    for detail in &step.details {
        writeln!(out, "  {:<WIDTH$}  {detail}", "")?;
    }
    Ok(())
}
