//! The output formats of etcd's tools.

/// `--write-out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutputFormat {
    Fields,
    Json,
    Simple,
    Table,
}

impl OutputFormat {
    /// Reads the flag's value; the error is etcdutl's.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "fields" => Ok(Self::Fields),
            "json" => Ok(Self::Json),
            "simple" => Ok(Self::Simple),
            "table" => Ok(Self::Table),
            "protobuf" => Err("protobuf not supported as output format"),
            _ => Err("unsupported output format"),
        }
    }
}

/// One value under the names it has in the formats.
pub(super) struct Cell {
    /// Above a table's column.
    pub(super) heading: &'static str,
    /// In a table and the simple form.
    pub(super) text: String,
    /// Before the number, one to a line.
    pub(super) field: &'static str,
    /// In JSON.
    pub(super) json: &'static str,
    /// In JSON and fields.
    pub(super) number: String,
}

/// Prints one row of values, without a line's end.
pub(super) fn print(cells: &[Cell], format: OutputFormat) -> String {
    let join = |separator: &str, each: &dyn Fn(&Cell) -> String| -> String {
        cells.iter().map(each).collect::<Vec<_>>().join(separator)
    };
    match format {
        OutputFormat::Simple => join(", ", &|cell| cell.text.clone()),
        OutputFormat::Fields => join("\n", &|cell| format!("\"{}\" : {}", cell.field, cell.number)),
        OutputFormat::Json => {
            format!("{{{}}}", join(",", &|cell| format!("\"{}\":{}", cell.json, cell.number)))
        }
        OutputFormat::Table => {
            let width = |cell: &Cell| cell.heading.len().max(cell.text.len());
            let line = format!("+{}+", join("+", &|cell| "-".repeat(width(cell) + 2)));
            // A heading that cannot be centred stands a little to the left.
            let headings = join("|", &|cell| {
                let gap = width(cell) - cell.heading.len();
                format!(" {}{}{} ", " ".repeat(gap / 2), cell.heading, " ".repeat(gap - gap / 2))
            });
            let texts = join("|", &|cell| format!(" {:>width$} ", cell.text, width = width(cell)));
            format!("{line}\n|{headings}|\n{line}\n|{texts}|\n{line}")
        }
    }
}

/// A number of bytes in three digits or so, decimal, as etcdutl prints it.
pub(super) fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut power = 0;
    while power + 1 < UNITS.len() && bytes >= 1000_u64.pow(power as u32 + 1) {
        power += 1;
    }
    let value = (bytes as f64 / 1000_f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let digits = usize::from(value < 10.0);
    format!("{value:.digits$} {}", UNITS[power])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_as_etcdutl_does() {
        for (bytes, text) in [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (20_480, "20 kB"),
            (82_854_982, "83 MB"),
            (1_500_000_000, "1.5 GB"),
        ] {
            assert_eq!(bytes_for_people(bytes), text);
        }
    }
}
