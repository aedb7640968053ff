//! Tables that fit a terminal. Pure.

/// Widest line, characters.
pub const MAX_LINE_WIDTH: usize = 120;
/// Spaces between columns.
const COLUMN_SPACING: usize = 2;

/// Alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnAlign {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header. Cells that do not fit continue on the next line.
#[derive(Clone, Debug)]
pub struct TextTable {
    columns: Vec<(&'static str, ColumnAlign)>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// An empty table with these columns.
    pub fn new(columns: &[(&'static str, ColumnAlign)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell per column.
    pub fn add_row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines, each at most [`MAX_LINE_WIDTH`] wide and ended by a line feed.
    pub fn render(&self) -> String {
        let widths = self.column_widths();
        let header: Vec<_> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut out = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, width)| wrap_cell(cell, *width)).collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for line in 0..height {
                let mut text = String::new();
                for ((cell, width), (_, align)) in cells.iter().zip(&widths).zip(&self.columns) {
                    let part = cell.get(line).map_or("", String::as_str);
                    let (before, after) = match align {
                        ColumnAlign::Left => (0, width - part.chars().count()),
                        ColumnAlign::Right => (width - part.chars().count(), 0),
                    };
                    text.extend(std::iter::repeat_n(' ', before));
                    text += part;
                    text.extend(std::iter::repeat_n(' ', after + COLUMN_SPACING));
                }
                out += text.trim_end();
                out.push('\n');
            }
        }
        out
    }

    /// Natural widths; the widest columns are narrowed until a line fits.
    fn column_widths(&self) -> Vec<usize> {
        let natural = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.columns[column].0.chars().count()]).max().unwrap_or(0)
        };
        let mut widths: Vec<_> = (0..self.columns.len()).map(natural).collect();
        let gaps = COLUMN_SPACING * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > MAX_LINE_WIDTH {
            let widest = widths.iter_mut().max().expect("a table too wide has a column");
            *widest -= 1;
        }
        widths
    }
}

/// Splits `cell` into pieces of at most `width` characters, after a separator where there is one
/// in the second half of a piece.
fn wrap_cell(cell: &str, width: usize) -> Vec<String> {
    let mut rest: Vec<char> = cell.chars().collect();
    let mut pieces = Vec::new();
    while rest.len() > width.max(1) {
        let near = |at: &usize| matches!(rest[*at], ' ' | ',' | ':' | '.' | ']' | '-');
        let end = (width / 2..width).rev().find(near).map_or(width.max(1), |at| at + 1);
        pieces.push(rest.drain(..end).collect());
    }
    pieces.push(rest.into_iter().collect());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_space() {
        let mut table = TextTable::new(&[("id", ColumnAlign::Right), ("peer", ColumnAlign::Left)]);
        table.add_row(vec!["1".to_owned(), "b".to_owned()]);
        table.add_row(vec!["100".to_owned(), "longer".to_owned()]);
        assert_eq!(table.render(), " id  peer\n  1  b\n100  longer\n");
    }

    #[test]
    fn wide_cells_go_on_in_the_next_line_and_lose_nothing() {
        let columns =
            [("a", ColumnAlign::Left), ("b", ColumnAlign::Left), ("c", ColumnAlign::Right)];
        let mut table = TextTable::new(&columns);
        let long = "word, ".repeat(40);
        table.add_row(vec![long.clone(), "x".repeat(200), "1".to_owned()]);
        let text = table.render();
        assert!(text.lines().all(|line| line.chars().count() <= MAX_LINE_WIDTH), "{text}");
        assert_eq!(text.matches("word,").count(), 40);
        assert_eq!(text.matches('x').count(), 200);
    }
}
