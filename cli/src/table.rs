//! Tables as kubectl prints them: capitals on top, two or more spaces between, no lines.

use std::fmt;

/// Rows of text under a header; `-` stands for an empty cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

// === impl Table ===

impl Table {
    pub(crate) fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| {
                    if cell.is_empty() {
                        "-".to_owned()
                    } else {
                        cell
                    }
                })
                .collect(),
        );
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// Orders the rows below the header by their cells, left to right.
    pub(crate) fn sorted(mut self) -> Self {
        self.rows[1..].sort();
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_empty_cells_show() {
        let mut table = Table::new(&["NAME", "READY"]);
        table.row(["web".into(), "1/1".into()]);
        table.row(["a-long-name".into(), String::new()]);
        assert_eq!(
            table.sorted().to_string(),
            "NAME          READY\na-long-name   -\nweb           1/1\n"
        );
    }
}
