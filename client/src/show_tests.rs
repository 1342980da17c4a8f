use vitals_wire::bounded::{List, Text};
use vitals_wire::section::{DiskIo, FileSystem, FileSystems, Inodes, Swap, Temperature, Temperatures};

use super::*;

fn sample() -> Sample {
    let root = FileSystem {
        device: Text::cut("vda"),
        path: Text::cut("/mnt/my disk"),
        fstype: Text::cut("ext4"),
        read_only: true,
        total: 100 << 30,
        free: 20 << 30,
        used: 75 << 30,
        inodes: Some(Inodes { total: 1000, free: 900 }),
    };
    let sensor = Temperature { sensor: Text::cut("coretemp_core_0"), millidegrees: 45_500 };
    let sections = vec![
        Swap { total: 0, free: 0, bytes_in: Some(1), bytes_out: None }.into(),
        FileSystems { file_systems: List::new(vec![root]).unwrap() }.into(),
        DiskIo::default().into(),
        Temperatures { sensors: List::new(vec![sensor]).unwrap() }.into(),
    ];
    Sample { time_ms: 1_700_000_000_003, sections: List::new(sections).unwrap() }
}

#[test]
fn json_has_measurement_tags_fields_and_time() {
    let text = json(&sample(), "web \"1\"", [("role", "db")]);
    let points: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(points.len(), 3);
    assert_eq!(
        points[1],
        serde_json::json!({
            "measurement": "disk",
            "tags": { "device": "vda", "fstype": "ext4", "host": "web \"1\"", "mode": "ro", "path": "/mnt/my disk", "role": "db" },
            "fields": {
                "free": 20u64 << 30, "inodes_free": 900, "inodes_total": 1000, "inodes_used": 100,
                "inodes_used_percent": 10.0, "total": 100u64 << 30, "used": 75u64 << 30, "used_percent": 78.95
            },
            "time": 1_700_000_000_003i64
        })
    );
    assert_eq!(points[0]["fields"].get("out"), None, "what is not known is absent");
}

#[test]
fn json_of_an_empty_sample_is_an_empty_list() {
    assert_eq!(
        serde_json::from_str::<Vec<serde_json::Value>>(&json(&Sample::default(), "h", [])).unwrap(),
        [serde_json::Value::Null; 0]
    );
}

#[test]
fn influx_is_line_protocol() {
    let text = influx(&sample(), &HostTags::new("h", []));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "swap,host=h free=0i,in=1i,total=0i,used=0i,used_percent=0 1700000000003000000");
    assert_eq!(lines[2], "temp,host=h,sensor=coretemp_core_0 temp=45.5 1700000000003000000");
}

#[test]
fn the_table_shows_sizes_shares_and_sensors_within_eighty_columns() {
    let text = table(&sample());
    assert!(text.contains("/mnt/my disk (ro)  100.0 GiB  75.0 GiB  79.0 %"), "{text}");
    assert!(!text.contains("DISK"), "there is none: {text}");
    assert!(text.contains("coretemp_core_0  45.5 °C"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
