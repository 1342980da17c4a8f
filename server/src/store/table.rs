//! Samples of one host by column: what lies between memory, blobs and answers.

use super::cell::Kind;

/// Some samples of one host, column by column.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Table {
    /// The time of each sample in ms.
    pub times: Vec<i64>,
    /// Ascending by number.
    pub columns: Vec<Column>,
}

/// The values of one column, for those samples that have one.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    /// From the dictionary.
    pub number: u32,
    pub kind: Kind,
    /// Places in the table's times, ascending.
    pub rows: Vec<u32>,
    /// As many.
    pub cells: Vec<i64>,
}

impl Column {
    pub(super) fn new(number: u32, kind: Kind) -> Self {
        Self { number, kind, rows: Vec::new(), cells: Vec::new() }
    }

    pub(super) fn push(&mut self, row: u32, cell: i64) {
        self.rows.push(row);
        self.cells.push(cell);
    }

    /// Makes the column's kind at least `kind`.
    fn rise(&mut self, kind: Kind) {
        if kind > self.kind {
            self.cells.iter_mut().for_each(|cell| *cell = self.kind.raise(*cell, kind));
            self.kind = kind;
        }
    }

    /// Puts the rows in order. Of several values for a row, the one that was pushed first stays.
    fn settle(&mut self) {
        if self.rows.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut pairs: Vec<(u32, i64)> = self.rows.iter().copied().zip(self.cells.iter().copied()).collect();
        pairs.sort_by_key(|(row, _)| *row);
        pairs.dedup_by_key(|(row, _)| *row);
        (self.rows, self.cells) = pairs.into_iter().unzip();
    }
}

impl Table {
    /// Whether the times ascend, each there once.
    pub(super) fn is_settled(&self) -> bool {
        self.times.is_sorted_by(|a, b| a < b)
    }
}

/// Joins tables of one host into one with ascending times, each once, and tells how many samples were there already.
///
/// This is the one place where duplicates are decided: two samples of the same time are one, and of two values for the
/// same column the one from the earlier table stays.
pub(super) fn merge(tables: &[Table]) -> (Table, u64) {
    let mut order: Vec<(i64, u32, u32)> = Vec::with_capacity(tables.iter().map(|t| t.times.len()).sum());
    for (source, table) in tables.iter().enumerate() {
        order.extend(table.times.iter().enumerate().map(|(row, time)| (*time, source as u32, row as u32)));
    }
    // Sources are mostly in order already, which a stable sort is quick about.
    order.sort();
    let mut merged = Table::default();
    let mut places: Vec<Vec<u32>> = tables.iter().map(|table| vec![0; table.times.len()]).collect();
    for (time, source, row) in &order {
        if merged.times.last() != Some(time) {
            merged.times.push(*time);
        }
        places[*source as usize][*row as usize] = merged.times.len() as u32 - 1;
    }
    for (table, places) in tables.iter().zip(&places) {
        let mut at = 0;
        for column in &table.columns {
            at += merged.columns[at..].partition_point(|other| other.number < column.number);
            if merged.columns.get(at).is_none_or(|other| other.number != column.number) {
                merged.columns.insert(at, Column::new(column.number, column.kind));
            }
            let target = &mut merged.columns[at];
            target.rise(column.kind);
            target.rows.extend(column.rows.iter().map(|row| places[*row as usize]));
            let kind = target.kind;
            target.cells.extend(column.cells.iter().map(|cell| column.kind.raise(*cell, kind)));
        }
    }
    merged.columns.iter_mut().for_each(Column::settle);
    let duplicates = (order.len() - merged.times.len()) as u64;
    (merged, duplicates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(i64, &[(u32, i64)])]) -> Table {
        let mut table = Table::default();
        for (row, (time, cells)) in rows.iter().enumerate() {
            table.times.push(*time);
            for (number, cell) in *cells {
                let at = table.columns.partition_point(|column| column.number < *number);
                if table.columns.get(at).is_none_or(|column| column.number != *number) {
                    table.columns.insert(at, Column::new(*number, Kind::Integer));
                }
                table.columns[at].push(row as u32, *cell);
            }
        }
        table
    }

    #[test]
    fn tables_join_in_order_of_time_and_a_sample_that_is_there_twice_counts_once() {
        let tables = [
            table(&[(3, &[(1, 30), (2, 300)]), (1, &[(1, 10)])]),
            table(&[(2, &[(1, 20), (9, 5)]), (3, &[(1, 31), (7, 70)])]),
        ];
        let (merged, duplicates) = merge(&tables);
        assert_eq!(duplicates, 1);
        let expected = table(&[(1, &[(1, 10)]), (2, &[(1, 20), (9, 5)]), (3, &[(1, 30), (2, 300), (7, 70)])]);
        assert_eq!(merged, expected);
    }

    #[test]
    fn columns_of_different_kinds_join_in_the_wider() {
        let column = |kind, cell| Column { number: 1, kind, rows: vec![0], cells: vec![cell] };
        let tables = [
            Table { times: vec![1], columns: vec![column(Kind::Centi, 150)] },
            Table { times: vec![2], columns: vec![column(Kind::Milli, 1234)] },
            Table { times: vec![3], columns: vec![column(Kind::Centi, 1)] },
        ];
        let (merged, _) = merge(&tables);
        assert_eq!(merged.columns[0].kind, Kind::Milli);
        assert_eq!(merged.columns[0].cells, [1500, 1234, 10]);
    }

    #[test]
    fn a_table_that_holds_a_time_twice_is_not_settled() {
        assert!(table(&[(1, &[]), (2, &[])]).is_settled());
        assert!(!table(&[(1, &[]), (1, &[])]).is_settled());
        assert!(!table(&[(2, &[]), (1, &[])]).is_settled());
    }
}
