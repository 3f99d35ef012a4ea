//! The rounds: each measures every case once, and each yardstick beside it.

use super::failure::{Failure, Result};
use super::measure::{self, Figures};
use super::options::Options;
use super::peer::Ends;
use super::progress::Progress;
use super::report::{Entry, Yardstick};
use super::samples::median;
use super::test::{Case, cases};
use super::yardstick::{self, Figure, Place, Tools};

pub(crate) async fn run(ends: &Ends, options: &Options, tools: &mut Tools) -> Result<Vec<Entry>> {
    let cases = cases(&options.what(), &options.measures(), &options.size.0, options.depth.into());
    if cases.is_empty() {
        return Err(Failure::new("there is nothing to measure: rates are not measured of what takes no peer"));
    }
    let place = place(ends)?;
    tools.note_useless(&cases, &place);
    let mut all: Vec<_> = cases.iter().map(|case| Rounds { case, ours: Vec::new(), others: Vec::new() }).collect();
    let progress = Progress::new(cases.len() as u64 * u64::from(options.repeat));
    for round in 1..=options.repeat {
        for rounds in &mut all {
            rounds.once(ends, options, tools, &place, &progress, round).await?;
            progress.step();
        }
    }
    Ok(all.into_iter().map(Rounds::entry).collect())
}

/// The rounds of a case so far.
struct Rounds<'a> {
    case: &'a Case,
    ours: Vec<Figures>,
    others: Vec<Other>,
}

/// Those of a yardstick.
struct Other {
    name: &'static str,
    statistic: Option<&'static str>,
    figures: Vec<f64>,
    ratios: Vec<f64>,
    error: Option<String>,
}

impl Rounds<'_> {
    async fn once(
        &mut self,
        ends: &Ends,
        options: &Options,
        tools: &Tools,
        place: &Place,
        progress: &Progress,
        round: u32,
    ) -> Result<()> {
        let case = self.case;
        progress.at("zcmi", case, round);
        let figures = measure::run(&ends.session, case, options.pace()).await?;
        for plan in tools.plans(case, place, figures.operations) {
            let other = self.other(plan.name);
            // What has failed once would only take its time.
            if other.error.is_some() {
                continue;
            }
            progress.at(plan.name, case, round);
            let found = yardstick::measure(&plan, case).await;
            self.other(plan.name).note(found, &figures, case);
        }
        self.ours.push(figures);
        Ok(())
    }

    fn other(&mut self, name: &'static str) -> &mut Other {
        let at = self.others.iter().position(|other| other.name == name).unwrap_or_else(|| {
            self.others.push(Other { name, statistic: None, figures: Vec::new(), ratios: Vec::new(), error: None });
            self.others.len() - 1
        });
        &mut self.others[at]
    }

    fn entry(self) -> Entry {
        let yardsticks = self.others.into_iter().map(Other::yardstick).collect();
        Entry::new(self.case, &self.ours, yardsticks)
    }
}

impl Other {
    fn note(&mut self, found: Result<Figure>, ours: &Figures, case: &Case) {
        let (statistic, value, own) = match found {
            Ok(Figure::Median(value)) => ("p50", value, ours.latency.as_ref().map(|latency| latency.p50)),
            Ok(Figure::Mean(value)) => ("mean", value, ours.latency.as_ref().map(|latency| latency.mean)),
            Ok(Figure::BytesPerSecond(value)) => {
                ("bytes_per_second", value, ours.per_second.map(|rate| rate * case.size as f64))
            }
            Err(failure) => {
                self.error = Some(failure.to_string());
                return;
            }
        };
        self.statistic = Some(statistic);
        self.figures.push(value);
        self.ratios.extend(own.map(|own| own / value));
    }

    fn yardstick(self) -> Yardstick {
        let figure = median(self.figures.iter().copied());
        let is_rate = self.statistic == Some("bytes_per_second");
        Yardstick {
            name: self.name.to_owned(),
            rounds: self.figures.len(),
            statistic: self.statistic,
            latency_ns: figure.filter(|_| !is_rate),
            bytes_per_second: figure.filter(|_| is_rate),
            ratio: median(self.ratios.into_iter()),
            error: self.error,
        }
    }
}

/// Where yardsticks run: on this host, by the way that was taken.
fn place(ends: &Ends) -> Result<Place> {
    let transport = ends.session.connection.transport().to_owned();
    let address = match (transport.as_str(), &ends.process) {
        ("verbs", Some(_)) => {
            let uri = super::device::address().map_err(Failure::new)?;
            let host = uri.trim_start_matches("rdma://").trim_end_matches(":0");
            host.trim_matches(['[', ']']).to_owned()
        }
        _ => "127.0.0.1".to_owned(),
    };
    Ok(Place { transport, address })
}
