//! Columns for people.

/// A text as a terminal may show it: what a host says of itself must not move the cursor or colour the words of others.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// These rows under these heads, each column as wide as its longest cell; an empty cell is a dash.
pub fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let heads = heads.map(str::to_owned);
    let shown = |cell: &str| if cell.is_empty() { "-".to_owned() } else { shown(cell) };
    let width = |at: usize| {
        let cells = std::iter::once(&heads).chain(rows);
        cells.map(|row| shown(&row[at]).chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", shown(cell)));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    std::iter::once(&heads).chain(rows).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let rows = [["数据库".to_owned(), String::new()], ["a".to_owned(), "up".to_owned()]];
        assert_eq!(table(["name", "state"], &rows), "name  state\n数据库   -\na     up\n");
    }
}
