use std::collections::BTreeSet;

use vitals_wire::mapping::{Point, Value, map_sample};

use super::*;

const NOON: i64 = 1_790_000_000_000;

fn given() -> Given {
    Given::default()
}

/// All integer fields of a sample by series and name.
fn integers(sample: &Sample) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    map_sample(sample, &mut |point: Point<'_>| {
        for field in point.fields {
            if let Value::Integer(value) = field.value {
                found.push((format!("{}{:?}.{}", point.measurement, point.tags, field.name), value));
            }
        }
    });
    found
}

fn field(sample: &Sample, measurement: &str, name: &str) -> f64 {
    let mut found = None;
    map_sample(sample, &mut |point: Point<'_>| {
        for field in
            point.fields.iter().filter(|field| point.measurement == measurement && field.name == name)
        {
            found.get_or_insert(match field.value {
                Value::Float(value) => value,
                Value::Integer(value) => value as f64,
                Value::Text(_) => f64::NAN,
            });
        }
    });
    found.unwrap()
}

#[test]
fn the_same_seed_and_time_give_the_same_host_and_sample() {
    let host = |seed, index| Host::numbered(seed, index, "sim-", 5000);
    let (a, b) = (host(7, 5), host(7, 5));
    assert_eq!((a.id, &a.secret, &a.name), (b.id, &b.secret, &b.name));
    let encode = |host: &Host| vitals_wire::sample::encode_sample(&host.sample(NOON, &given())).unwrap();
    assert_eq!(encode(&a), encode(&b));
    for other in [host(8, 5), host(7, 6)] {
        assert_ne!(a.id, other.id);
        assert_ne!(a.secret, other.secret);
        assert_ne!(encode(&a), encode(&other));
    }
    let ids: BTreeSet<_> = (0..10_000).map(|index| host(7, index).id).collect();
    assert_eq!(ids.len(), 10_000);
}

#[test]
fn counters_never_fall_and_do_move() {
    let counters = [
        "bytes_recv",
        "bytes_sent",
        "packets_",
        "drop_",
        "err_",
        ".reads",
        ".writes",
        "_bytes",
        "_time",
        "merged_",
        "uptime",
        "swap[].in",
        "swap[].out",
    ];
    for index in 0..6 {
        let host = Host::numbered(1, index, "sim-", 5000);
        let mut before: Vec<(String, i64)> = Vec::new();
        for step in 0..700 {
            let now: Vec<_> = integers(&host.sample(NOON + step * 5000, &given()))
                .into_iter()
                .filter(|(name, _)| {
                    counters.iter().any(|counter| name.contains(counter)) && !name.contains("boot_time")
                })
                .collect();
            for ((name, before), (_, now)) in before.iter().zip(&now) {
                assert!(before <= now, "{name} fell from {before} to {now}");
            }
            before = now;
        }
        let first = integers(&host.sample(NOON, &given()));
        let moved = before
            .iter()
            .filter(|(name, value)| !first.contains(&(name.clone(), *value)) && name.starts_with("net"))
            .count();
        assert!(moved >= 8, "{moved} counters of the network moved in hours");
    }
}

#[test]
fn a_sample_is_as_large_as_a_real_one() {
    let (mut series, mut fields, mut bytes) = (0, 0, 0);
    for index in 0..300 {
        let host = Host::numbered(1, index, "sim-", 5000);
        let sample = host.sample(NOON / WALK_MS * WALK_MS, &given());
        map_sample(&sample, &mut |point: Point<'_>| {
            series += 1;
            fields += point.fields.len();
        });
        let between = host.sample(NOON / WALK_MS * WALK_MS + 10_000, &given());
        assert!(
            between.sections.len() < sample.sections.len(),
            "processes are walked over now and then only"
        );
        bytes += vitals_wire::sample::encode_sample(&between).unwrap().len();
    }
    assert!((20..=26).contains(&(series / 300)), "{} series", series / 300);
    assert!((110..=160).contains(&(fields / 300)), "{} fields", fields / 300);
    assert!((400..=900).contains(&(bytes / 300)), "{} bytes", bytes / 300);
}

#[test]
fn shares_of_time_sum_to_a_hundred_percent() {
    for index in 0..50 {
        let sample = Host::numbered(3, index, "", 1000).sample(NOON + i64::from(index) * 977, &given());
        let cpu =
            sample.find(|section| if let Section::Cpu(cpu) = section { Some(cpu) } else { None }).unwrap();
        for usage in cpu.cores.iter().map(|core| core.usage).chain([cpu.total]) {
            let rest = [usage.nice, usage.iowait, usage.irq, usage.softirq, usage.steal];
            let sum: u32 = rest.into_iter().flatten().map(|part| part.0).sum();
            assert_eq!(usage.user.0 + usage.system.0 + usage.idle.0 + sum, 10_000);
        }
    }
}

#[test]
fn one_is_busy_and_one_has_a_filling_disk() {
    let at = |index: u32, hour: f64| {
        Host::numbered(1, index, "", 5000).sample(NOON + (hour * 3.6e6) as i64, &given())
    };
    assert!((0..24).all(|hour| field(&at(1, f64::from(hour)), "cpu", "usage_active") > 85.0));
    assert!((0..24).any(|hour| field(&at(0, f64::from(hour)), "cpu", "usage_active") < 50.0));
    let used: Vec<f64> =
        (0..60).map(|step| field(&at(2, f64::from(step) / 10.0), "disk", "used_percent")).collect();
    let rising = used.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!(rising >= 58 && used.iter().any(|used| *used > 97.0), "{used:?}");
}

#[test]
fn given_values_come_out_as_given() {
    let host = Host::named(1, "web-1", 5000);
    let given = Given {
        cpu: Some(97.25),
        load: Some(8.5),
        mem: Some(91.0),
        swap: Some(50.0),
        disk: Some(99.5),
        temp: Some(71.5),
    };
    let sample = host.sample(NOON, &given);
    for (measurement, name, expected) in [
        ("cpu", "usage_active", 97.25),
        ("system", "load1", 8.5),
        ("system", "load15", 8.5),
        ("mem", "used_percent", 91.0),
        ("swap", "used_percent", 50.0),
        ("disk", "used_percent", 99.5),
        ("temp", "temp", 71.5),
    ] {
        assert_eq!(field(&sample, measurement, name), expected, "{measurement}.{name}");
    }
    assert_eq!(host.sample(-5, &given).time_ms, -5, "times before all starts do no harm");
}
