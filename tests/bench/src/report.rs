//! Pairs of measurements of a peer and of ours, their medians, and how they are shown.

use serde_json::{Value, json};

use crate::load::Rate;

/// What was measured of one program in one run.
#[derive(Clone, Debug)]
pub enum Measured {
    /// Operations a second: more is better.
    Rate(Rate),
    /// An amount with its unit: less is better.
    Amount(f64, &'static str),
}

/// A figure that is better when smaller.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// How much of it.
    pub amount: f64,
    /// `s` or `MB`.
    pub unit: &'static str,
}

/// Makes one.
pub fn figure(what: impl Into<String>, amount: f64, unit: &'static str) -> Figure {
    Figure { what: what.into(), amount, unit }
}

/// All runs of one row.
pub struct Row {
    /// What was done.
    pub work: String,
    /// With how many members, objects or watchers.
    pub size: usize,
    /// The peer's runs; empty when only ours ran.
    pub peer: Vec<Measured>,
    /// Our runs, in the same order.
    pub ours: Vec<Measured>,
}

/// The middle one; of an even number the mean of both.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    if numbers.is_empty() {
        return f64::NAN;
    }
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[middle] } else { (numbers[middle - 1] + numbers[middle]) / 2.0 }
}

/// All rows of a run.
pub struct Report {
    /// What the sizes of rows count.
    pub sizes: &'static str,
    /// In the order they were measured in.
    pub rows: Vec<Row>,
}

type Column = fn(&Rate) -> f64;

impl Report {
    /// Without rows; `sizes` says what their sizes count.
    pub fn new(sizes: &'static str) -> Self {
        Self { sizes, rows: Vec::new() }
    }

    /// Adds a run of one program.
    pub fn add(&mut self, work: &str, size: usize, ours: bool, measured: Measured) {
        let index = self.rows.iter().position(|row| row.work == work && row.size == size);
        let index = index.unwrap_or_else(|| {
            self.rows.push(Row { work: work.to_owned(), size, peer: Vec::new(), ours: Vec::new() });
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        if ours { &mut row.ours } else { &mut row.peer }.push(measured);
    }

    /// Tables for people.
    pub fn text(&self, peer_name: &str) -> String {
        let mut rates = vec![
            ["work", self.sizes, "a second: peer", "ours", "ratio", "CPU s/1,000: peer", "ours", "ratio"]
                .into_iter()
                .chain(["p50/p99 ms: peer", "ours", "MB: peer", "ours", "load's cores", "errors"])
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ];
        let mut amounts =
            vec![["work", self.sizes, "peer", "ours", "peer / ours"].map(str::to_owned).to_vec()];
        for row in &self.rows {
            match row.ours.first() {
                Some(Measured::Rate(_)) => rates.push(row.rate_cells()),
                Some(Measured::Amount(_, unit)) => amounts.push(row.amount_cells(unit)),
                None => {}
            }
        }
        let mut text = format!("peer: {peer_name}; medians; ratios are medians of each pair's ratio\n");
        for table in [rates, amounts].iter().filter(|table| table.len() > 1) {
            text.push('\n');
            text.push_str(&aligned(table));
        }
        text
    }

    /// Everything measured, for programs.
    pub fn json(&self, peer_name: &str) -> Value {
        let measured = |measured: &Measured| match measured {
            Measured::Rate(rate) => json!({
                "perSecond": rate.per_second,
                "cpuSecondsPerThousand": rate.cpu_seconds_per_thousand,
                "p50Ms": rate.p50_ms,
                "p99Ms": rate.p99_ms,
                "residentMb": rate.resident_mb,
                "loadCores": rate.load_cores,
                "errors": rate.errors,
            }),
            Measured::Amount(amount, unit) => json!({ "amount": amount, "unit": unit }),
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "work": row.work,
                    (self.sizes): row.size,
                    "peer": row.peer.iter().map(measured).collect::<Vec<_>>(),
                    "ours": row.ours.iter().map(measured).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({ "peer": peer_name, "rows": rows })
    }
}

impl Row {
    fn rates(runs: &[Measured], column: Column) -> Vec<f64> {
        runs.iter()
            .filter_map(|run| if let Measured::Rate(rate) = run { Some(column(rate)) } else { None })
            .collect()
    }

    fn both(&self, column: Column) -> (f64, f64) {
        (median(Self::rates(&self.peer, column)), median(Self::rates(&self.ours, column)))
    }

    /// The median of ours / peer's over the pairs.
    fn ratio(&self, column: Column) -> f64 {
        let pairs = Self::rates(&self.peer, column).into_iter().zip(Self::rates(&self.ours, column));
        median(pairs.map(|(peer, ours)| ours / peer).collect())
    }

    fn rate_cells(&self) -> Vec<String> {
        let per_second: Column = |rate| rate.per_second;
        let cpu: Column = |rate| rate.cpu_seconds_per_thousand;
        let (peer, ours) = self.both(per_second);
        let (peer_cpu, own_cpu) = self.both(cpu);
        let (peer_p50, own_p50) = self.both(|rate| rate.p50_ms);
        let (peer_p99, own_p99) = self.both(|rate| rate.p99_ms);
        let (peer_mb, own_mb) = self.both(|rate| rate.resident_mb);
        let (peer_load, own_load) = self.both(|rate| rate.load_cores);
        let errors: f64 = [&self.peer, &self.ours]
            .into_iter()
            .flat_map(|runs| Self::rates(runs, |r| r.errors as f64))
            .sum();
        vec![
            self.work.clone(),
            self.size.to_string(),
            number(peer),
            number(ours),
            format!("{:.2}", self.ratio(per_second)),
            number(peer_cpu),
            number(own_cpu),
            format!("{:.2}", self.ratio(cpu)),
            format!("{} / {}", number(peer_p50), number(peer_p99)),
            format!("{} / {}", number(own_p50), number(own_p99)),
            number(peer_mb),
            number(own_mb),
            format!("{peer_load:.2} / {own_load:.2}"),
            errors.to_string(),
        ]
    }

    fn amount_cells(&self, unit: &str) -> Vec<String> {
        let amounts = |runs: &[Measured]| -> Vec<f64> {
            runs.iter()
                .filter_map(|run| if let Measured::Amount(a, _) = run { Some(*a) } else { None })
                .collect()
        };
        let (peer, ours) = (amounts(&self.peer), amounts(&self.ours));
        let ratios = peer.iter().zip(&ours).map(|(peer, ours)| peer / ours).collect();
        vec![
            self.work.clone(),
            self.size.to_string(),
            format!("{} {unit}", number(median(peer))),
            format!("{} {unit}", number(median(ours))),
            format!("{:.2}", median(ratios)),
        ]
    }
}

/// Three digits that matter, thousands apart; a dash for what was not measured.
fn number(n: f64) -> String {
    if n.is_nan() {
        return "-".to_owned();
    }
    if n < 100.0 {
        let decimals = if n >= 10.0 {
            1
        } else if n >= 1.0 {
            2
        } else {
            3
        };
        return format!("{n:.decimals$}");
    }
    let digits = format!("{n:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first column left, the others right.
fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in table {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let width = *width;
            text.push_str(&if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") });
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_those_of_pairs_not_of_medians() {
        let mut report = Report::new("members");
        for (peer, ours) in [(1.0, 2.0), (10.0, 20.0), (100.0, 300.0)] {
            for (own, per_second) in [(false, peer), (true, ours)] {
                report.add("w", 1, own, Measured::Rate(Rate { per_second, ..Rate::default() }));
            }
        }
        assert_eq!(report.rows[0].ratio(|rate| rate.per_second), 2.0);
        assert_eq!(report.rows[0].both(|rate| rate.per_second), (10.0, 20.0));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(1_234_567.0), "1,234,567");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.0456), "0.046");
        assert_eq!(number(f64::NAN), "-");
    }
}
