use super::*;

fn table(rows: usize) -> Table {
    let mut random = fastrand::Rng::with_seed(7);
    let times = (0..rows as i64).map(|i| 1_700_000_000_000 + i * 5_000 + random.i64(0..4)).collect();
    let column = |number, kind, every: usize, mut cell: Box<dyn FnMut(usize) -> i64>| {
        let rows: Vec<u32> = (0..rows as u32).step_by(every).collect();
        let cells = (0..rows.len()).map(&mut cell).collect();
        Column { number, kind, rows, cells }
    };
    let columns = vec![
        column(0, Kind::Integer, 1, Box::new(|i| i as i64 * 4096)),
        column(3, Kind::Centi, 1, Box::new(|i| (i as i64 * 31) % 977)),
        column(4, Kind::Integer, 6, Box::new(|i| i as i64 % 5)),
        column(5, Kind::Integer, 6, Box::new(|_| 42)),
        column(900, Kind::Bits, 1, Box::new(|i| (i as f64 / 3.0).to_bits() as i64)),
    ];
    Table { times, columns }
}

#[test]
fn a_table_survives_whole_and_column_by_column() {
    for rows in [1, 5, 60, 255, 256, 720] {
        let table = table(rows);
        let blob = BlobEncoder::default().encode(&table).unwrap();
        assert_eq!(read_all(&blob).unwrap(), table);
        let directory = Directory::read(&blob).unwrap();
        assert_eq!(
            (directory.header.first_ms, directory.header.last_ms),
            (table.times[0], table.times[rows - 1])
        );
        for (entry, column) in directory.columns.iter().zip(&table.columns) {
            let data = &blob[entry.offset..entry.offset + entry.bytes];
            assert_eq!(&directory.column(entry, data).unwrap(), column);
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed() {
    for rows in [20, 300] {
        let mut blob = BlobEncoder::default().encode(&table(rows)).unwrap();
        for byte in 0..blob.len() {
            blob[byte] ^= 1 << (byte % 8);
            assert!(read_all(&blob).is_err(), "byte {byte} of {}", blob.len());
            blob[byte] ^= 1 << (byte % 8);
        }
    }
}

#[test]
fn a_blob_that_is_cut_short_is_noticed() {
    let blob = BlobEncoder::default().encode(&table(300)).unwrap();
    for length in 0..blob.len() {
        assert!(read_all(&blob[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_newer_version_is_named() {
    let mut blob = BlobEncoder::default().encode(&table(3)).unwrap();
    blob[4] = 2;
    assert_eq!(read_all(&blob).unwrap_err(), BlobError::Version(2));
}

#[test]
fn what_is_no_settled_table_is_not_encoded() {
    for times in [vec![], vec![2, 1], vec![1, 1]] {
        assert!(BlobEncoder::default().encode(&Table { times, columns: Vec::new() }).is_err());
    }
}
