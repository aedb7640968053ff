//! Tables that fit a terminal. Pure.
//!
//! A table that is too wide continues its lists on further lines, then hides the columns that
//! matter least, then shows one field a line. It breaks a line between the items of a list only, so
//! that every address stands whole.

use super::style::{OutputStyle, TextTone};
use crate::text::escape;

/// Spaces between columns.
const COLUMN_SPACING: usize = 2;
/// Separator of the items of a list.
const ITEM_SEPARATOR: &str = ", ";

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct TableColumn {
    name: &'static str,
    is_number: bool,
    /// Columns of a higher rank are hidden first; 0 is never hidden.
    rank: u8,
}

impl TableColumn {
    /// A column of text, which is never hidden.
    pub const fn text(name: &'static str) -> Self {
        Self { name, is_number: false, rank: 0 }
    }

    /// A column of numbers, which is never hidden.
    pub const fn number(name: &'static str) -> Self {
        Self { name, is_number: true, rank: 0 }
    }

    /// The same, hidden before those of a lower rank.
    pub const fn with_rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// A cell, escaped.
#[derive(Clone, Debug)]
pub struct TableCell {
    text: String,
    tone: TextTone,
}

impl TableCell {
    /// A cell in the colour of its tone.
    pub fn with_tone(text: impl AsRef<str>, tone: TextTone) -> Self {
        Self { text: escape(text.as_ref()), tone }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }

    fn longest_item(&self) -> usize {
        let items = self.text.split_inclusive(ITEM_SEPARATOR);
        items.map(|item| item.trim_end().chars().count()).max().unwrap_or(0)
    }

    /// The lines of the cell, each at most `width` wide.
    fn wrap_items(&self, width: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for item in self.text.split_inclusive(ITEM_SEPARATOR) {
            let line = lines.last().map_or(0, |line| line.chars().count());
            if line > 0 && line + item.trim_end().chars().count() > width {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(item);
            }
        }
        lines.into_iter().map(|line| line.trim_end().to_owned()).collect()
    }
}

impl<T: AsRef<str>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self::with_tone(text, TextTone::Plain)
    }
}

/// Rows under a header.
#[derive(Clone, Debug)]
pub struct TextTable {
    columns: Vec<TableColumn>,
    rows: Vec<Vec<TableCell>>,
}

impl TextTable {
    /// An empty table with these columns.
    pub fn new(columns: &[TableColumn]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell per column.
    pub fn add_row(&mut self, cells: Vec<TableCell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines, each ended by a line feed.
    pub fn render(&self, style: &OutputStyle) -> String {
        let mut shown: Vec<_> = (0..self.columns.len()).collect();
        let mut hidden: Vec<usize> = Vec::new();
        loop {
            if let Some(widths) = self.column_widths(&shown, style.width) {
                let mut out = self.render_rows(&shown, &widths, style);
                if !hidden.is_empty() {
                    hidden.sort_unstable();
                    let names: Vec<_> = hidden.iter().map(|at| self.columns[*at].name).collect();
                    let note = format!("hidden (see --wide): {}", names.join(ITEM_SEPARATOR));
                    let room = style.width.unwrap_or(usize::MAX);
                    for line in TableCell::from(note).wrap_items(room) {
                        out += &style.paint_text(&line, TextTone::Faint);
                        out.push('\n');
                    }
                }
                return out;
            }
            let least = shown.iter().copied().max_by_key(|at| self.columns[*at].rank);
            match least.filter(|at| self.columns[*at].rank > 0) {
                Some(least) => {
                    shown.retain(|at| *at != least);
                    hidden.push(least);
                }
                None => return self.render_fields(style),
            }
        }
    }

    /// Widths of the shown columns, lists narrowed until a line fits; `None` where none do.
    fn column_widths(&self, shown: &[usize], limit: Option<usize>) -> Option<Vec<usize>> {
        let widest = |at: usize, width: fn(&TableCell) -> usize| {
            let cells = self.rows.iter().map(|row| width(&row[at]));
            cells.chain([self.columns[at].name.len()]).max().unwrap_or(0)
        };
        let mut widths: Vec<_> = shown.iter().map(|at| widest(*at, TableCell::width)).collect();
        let gaps = COLUMN_SPACING * widths.len().saturating_sub(1);
        let room = limit.unwrap_or(usize::MAX);
        let excess = |widths: &[usize]| (widths.iter().sum::<usize>() + gaps).saturating_sub(room);
        for (place, at) in shown.iter().enumerate() {
            let least = widest(*at, TableCell::longest_item);
            widths[place] -= (widths[place] - least).min(excess(&widths));
        }
        (excess(&widths) == 0).then_some(widths)
    }

    fn render_rows(&self, shown: &[usize], widths: &[usize], style: &OutputStyle) -> String {
        let header: Vec<TableCell> = self.columns.iter().map(|column| column.name.into()).collect();
        let mut out = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let cells: Vec<_> =
                shown.iter().zip(widths).map(|(at, width)| row[*at].wrap_items(*width)).collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for line in 0..height {
                let mut text = String::new();
                let mut pending = 0;
                for ((at, width), cell) in shown.iter().zip(widths).zip(&cells) {
                    let part = cell.get(line).map_or("", String::as_str);
                    let free = width - part.chars().count();
                    let (before, after) =
                        if self.columns[*at].is_number { (free, 0) } else { (0, free) };
                    if !part.is_empty() {
                        text.extend(std::iter::repeat_n(' ', pending + before));
                        text += &style.paint_text(part, row[*at].tone);
                        pending = after + COLUMN_SPACING;
                    } else {
                        pending += width + COLUMN_SPACING;
                    }
                }
                out += &text;
                out.push('\n');
            }
        }
        out
    }

    /// One field a line, for a terminal too narrow for a table.
    fn render_fields(&self, style: &OutputStyle) -> String {
        let widest = self.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row).filter(|(_, cell)| !cell.text.is_empty());
            let line = |(column, cell): (&TableColumn, &TableCell)| {
                let value = style.paint_text(&cell.text, cell.tone);
                format!("{:<widest$}  {value}\n", column.name)
            };
            cells.map(line).collect::<String>()
        });
        rows.collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(width: usize) -> OutputStyle {
        OutputStyle { width: Some(width), ..OutputStyle::default() }
    }

    fn table() -> TextTable {
        let columns = [
            TableColumn::number("id"),
            TableColumn::text("addresses"),
            TableColumn::text("policy").with_rank(1),
        ];
        let mut table = TextTable::new(&columns);
        table.add_row(vec!["1".into(), "10.1.0.2:3343, 10.2.0.2:3343".into(), "failover".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = TextTable::new(&[TableColumn::number("id"), TableColumn::text("peer")]);
        table.add_row(vec!["1".into(), "b".into()]);
        table.add_row(vec!["100".into(), "longer".into()]);
        assert_eq!(table.render(&OutputStyle::default()), " id  peer\n  1  b\n100  longer\n");
    }

    #[test]
    fn a_table_too_wide_wraps_lists_then_hides_columns_then_shows_fields() {
        let wide = "id  addresses                     policy\n \
                    1  10.1.0.2:3343, 10.2.0.2:3343  failover\n";
        assert_eq!(table().render(&OutputStyle::default()), wide);
        assert_eq!(table().render(&style(42)), wide);
        let wrapped = "id  addresses       policy\n \
                       1  10.1.0.2:3343,  failover\n    10.2.0.2:3343\n";
        assert_eq!(table().render(&style(28)), wrapped);
        let hidden = "id  addresses\n 1  10.1.0.2:3343,\n    10.2.0.2:3343\n\
                      hidden (see --wide): policy\n";
        assert_eq!(table().render(&style(20)), hidden);
        let fields = "id         1\naddresses  10.1.0.2:3343, 10.2.0.2:3343\npolicy     failover\n";
        assert_eq!(table().render(&style(10)), fields);
    }

    #[test]
    fn colours_take_no_room_and_cells_are_escaped() {
        let mut table = TextTable::new(&[TableColumn::text("state"), TableColumn::text("peer")]);
        table.add_row(vec![TableCell::with_tone("up", TextTone::Good), "b\x1b".into()]);
        let coloured = OutputStyle { is_coloured: true, ..OutputStyle::default() };
        let expected = "state  peer\n\x1b[32mup\x1b[0m     b\\u{1b}\n";
        assert_eq!(table.render(&coloured), expected);
    }
}
