//! Any message and any sample, for property tests.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::bounded::{List, Text};
use crate::centi::Centi;
use crate::ids::{HostId, RunId, Secret};
use crate::message::*;
use crate::record::Record;
use crate::sample::Sample;
use crate::section::*;

/// Whole figures near the places where a varint grows as often as anywhere else.
fn count() -> impl Strategy<Value = u64> + Clone {
    let edges = [0, 1, 250, 251, 65_535, 65_536, u32::MAX.into(), 1 << 32, i64::MAX as u64, u64::MAX];
    prop_oneof![any::<u64>(), 0..1000u64, proptest::sample::select(edges.to_vec())]
}

fn small() -> impl Strategy<Value = u32> + Clone {
    count().prop_map(|count| count as u32)
}

fn signed() -> impl Strategy<Value = i64> {
    count().prop_map(|count| count as i64)
}

fn centi() -> impl Strategy<Value = Centi> + Clone {
    small().prop_map(Centi)
}

/// Texts up to their cap, with everything in them that somebody has to escape.
pub(crate) fn text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> + Clone {
    prop_oneof![
        4 => r#"[a-c ,=\\"\n\t'#é数_\x00\x7f]{0,12}"#,
        1 => r"\PC{0,40}",
        1 => proptest::collection::vec(any::<char>(), MAX).prop_map(String::from_iter),
    ]
    .prop_map(|text| Text::cut(&text))
}

fn list<S: Strategy, const MAX: usize>(entry: S) -> impl Strategy<Value = List<S::Value, MAX>>
where
    S::Value: Clone,
{
    vec(entry, 0..=MAX.min(3)).prop_map(|entries| List::first(entries).0)
}

/// Every float that equals itself; what does not is tried by `line`'s tests.
fn float() -> impl Strategy<Value = f64> + Clone {
    any::<f64>().prop_filter("NaN is not equal to itself", |float| !float.is_nan())
}

fn usage() -> impl Strategy<Value = CpuUsage> + Clone {
    let share = || option::of(centi());
    (centi(), centi(), centi(), share(), share(), share(), share(), share(), share(), share()).prop_map(
        |(user, system, idle, nice, iowait, irq, softirq, steal, guest, guest_nice)| CpuUsage {
            user,
            system,
            idle,
            nice,
            iowait,
            irq,
            softirq,
            steal,
            guest,
            guest_nice,
        },
    )
}

fn cpu() -> impl Strategy<Value = Cpu> {
    let core = (small(), usage(), option::of(small())).prop_map(|(number, usage, frequency_khz)| Core {
        number,
        usage,
        frequency_khz,
    });
    (usage(), list(core)).prop_map(|(total, cores)| Cpu { total, cores })
}

fn memory() -> impl Strategy<Value = Memory> {
    ([count(), count(), count()], vec(option::of(count()), 21)).prop_map(
        |([total, available, free], rest)| {
            let mut rest = rest.into_iter();
            let mut next = || rest.next().unwrap();
            Memory {
                total,
                available,
                free,
                cached: next(),
                buffered: next(),
                active: next(),
                inactive: next(),
                shared: next(),
                slab: next(),
                sreclaimable: next(),
                sunreclaim: next(),
                page_tables: next(),
                mapped: next(),
                dirty: next(),
                write_back: next(),
                write_back_tmp: next(),
                commit_limit: next(),
                committed_as: next(),
                huge_pages_total: next(),
                huge_pages_free: next(),
                huge_page_size: next(),
                swap_cached: next(),
                swap_total: next(),
                swap_free: next(),
            }
        },
    )
}

fn swap() -> impl Strategy<Value = Swap> {
    (count(), count(), option::of(count()), option::of(count()))
        .prop_map(|(total, free, bytes_in, bytes_out)| Swap { total, free, bytes_in, bytes_out })
}

fn file_system() -> impl Strategy<Value = FileSystem> {
    let inodes = (count(), count()).prop_map(|(total, free)| Inodes { total, free });
    (text(), text(), text(), any::<bool>(), [count(), count(), count()], option::of(inodes)).prop_map(
        |(device, path, fstype, read_only, [total, free, used], inodes)| FileSystem {
            device,
            path,
            fstype,
            read_only,
            total,
            free,
            used,
            inodes,
        },
    )
}

fn disk(float: impl Strategy<Value = f64> + Clone) -> impl Strategy<Value = Disk> {
    let times = (option::of(float.clone()), option::of(float.clone()), float)
        .prop_map(|(io_await, io_svctm, io_util)| DiskTimes { io_await, io_svctm, io_util });
    (text(), vec(count(), 4), vec(option::of(count()), 7), option::of(times)).prop_map(
        |(name, counts, rest, times)| Disk {
            name,
            reads: counts[0],
            writes: counts[1],
            read_bytes: counts[2],
            write_bytes: counts[3],
            read_time: rest[0],
            write_time: rest[1],
            io_time: rest[2],
            weighted_io_time: rest[3],
            iops_in_progress: rest[4],
            merged_reads: rest[5],
            merged_writes: rest[6],
            times,
        },
    )
}

fn interface() -> impl Strategy<Value = Interface> {
    (text(), vec(count(), 6), option::of(count()), option::of(count()), option::of(signed())).prop_map(
        |(name, counts, drop_in, drop_out, speed)| Interface {
            name,
            bytes_recv: counts[0],
            bytes_sent: counts[1],
            packets_recv: counts[2],
            packets_sent: counts[3],
            err_in: counts[4],
            err_out: counts[5],
            drop_in,
            drop_out,
            speed,
        },
    )
}

fn system() -> impl Strategy<Value = System> {
    let load = option::of([centi(), centi(), centi()]);
    (load, small(), option::of(small()), option::of(small()), count(), option::of(signed())).prop_map(
        |(load, n_cpus, n_physical_cpus, n_users, uptime, boot_time)| System {
            load,
            n_cpus,
            n_physical_cpus,
            n_users,
            uptime,
            boot_time,
        },
    )
}

fn processes() -> impl Strategy<Value = Processes> {
    let walk = vec(small(), 8).prop_map(|counts| ProcessStates {
        total: counts[0],
        sleeping: counts[1],
        zombies: counts[2],
        stopped: counts[3],
        idle: counts[4],
        dead: counts[5],
        paging: counts[6],
        unknown: counts[7],
    });
    (option::of(small()), option::of(small()), option::of(small()), option::of(walk)).prop_map(
        |(running, blocked, total_threads, walk)| Processes { running, blocked, total_threads, walk },
    )
}

fn temperature() -> impl Strategy<Value = Temperature> {
    (text(), any::<i32>()).prop_map(|(sensor, millidegrees)| Temperature { sensor, millidegrees })
}

fn process_group() -> impl Strategy<Value = ProcessGroup> {
    (text(), small(), centi(), count()).prop_map(|(name, count, cpu, memory)| ProcessGroup {
        name,
        count,
        cpu,
        memory,
    })
}

fn server_health() -> impl Strategy<Value = ServerHealth> {
    let dropped = (text(), count()).prop_map(|(reason, count)| ReasonCount { reason, count });
    (vec(count(), 10), vec(option::of(count()), 3), list(dropped)).prop_map(|(counts, influx, dropped)| {
        ServerHealth {
            uptime: counts[0],
            hosts: counts[1],
            hosts_up: counts[2],
            connections: counts[3],
            samples_received: counts[4],
            samples_acked: counts[5],
            journal_bytes: counts[6],
            store_lag_bytes: counts[7],
            influx_lag_bytes: influx[0],
            influx_lag_ms: influx[1],
            influx_lines: influx[2],
            memory: counts[8],
            cpu_ms: counts[9],
            dropped,
        }
    })
}

fn client_health() -> impl Strategy<Value = ClientHealth> {
    let dropped = (text(), count()).prop_map(|(reason, count)| ReasonCount { reason, count });
    let signed = vec(option::of(any::<i64>()), 2);
    (vec(count(), 10), vec(option::of(count()), 2), signed, list(dropped)).prop_map(
        |(counts, times, signed, dropped)| ClientHealth {
            uptime: counts[0],
            connected: times[0],
            connections: counts[1],
            samples_taken: counts[2],
            samples_acked: counts[3],
            waiting_memory: counts[4],
            waiting_disk: counts[5],
            oldest_waiting_ms: times[1],
            spool_bytes: counts[6],
            skew_ms: signed[0],
            clock_steps: counts[7],
            last_step_ms: signed[1],
            memory: times[1],
            cpu_ms: counts[9],
            dropped,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let kind = proptest::sample::select(EventKind::ALL.to_vec());
    (any::<[u8; 16]>(), text(), kind, text()).prop_map(|(host, name, kind, detail)| Event {
        host: HostId(host),
        name,
        kind,
        detail,
    })
}

/// A section of a kind that this version does not know.
fn unknown() -> impl Strategy<Value = Section> {
    let kind = prop_oneof![12..100u32, 102..1000u32, Just(u32::MAX), Just(0)];
    (kind, vec(any::<u8>(), 0..20))
        .prop_map(|(kind, bytes)| Section::Opaque(Opaque { kind, bytes: bytes.into() }))
}

fn section_with(float: impl Strategy<Value = f64> + Clone + 'static) -> impl Strategy<Value = Section> {
    prop_oneof![
        cpu().prop_map(Section::Cpu),
        memory().prop_map(|memory| Section::Memory(Box::new(memory))),
        swap().prop_map(Section::Swap),
        list(file_system()).prop_map(|file_systems| Section::FileSystems(FileSystems { file_systems })),
        list(disk(float)).prop_map(|disks| Section::DiskIo(DiskIo { disks })),
        list(interface()).prop_map(|interfaces| Section::Network(Network { interfaces })),
        system().prop_map(Section::System),
        processes().prop_map(Section::Processes),
        list(temperature()).prop_map(|sensors| Section::Temperatures(Temperatures { sensors })),
        list(process_group()).prop_map(|groups| Section::TopProcesses(TopProcesses { groups })),
        client_health().prop_map(|health| Section::ClientHealth(Box::new(health))),
        server_health().prop_map(Section::ServerHealth),
        list(event()).prop_map(|events| Section::Events(Events { events })),
        unknown(),
    ]
}

/// A section of any kind that equals itself.
pub(crate) fn section() -> impl Strategy<Value = Section> {
    section_with(float())
}

fn sample_of(section: impl Strategy<Value = Section>) -> impl Strategy<Value = Sample> {
    (signed(), vec(section, 0..14))
        .prop_map(|(time_ms, sections)| Sample { time_ms, sections: List::first(sections).0 })
}

/// A sample that equals itself.
pub(crate) fn sample() -> impl Strategy<Value = Sample> {
    sample_of(section())
}

/// A sample of any time that line protocol can say, in which floats may be NaN and infinite.
pub(crate) fn hostile_sample() -> impl Strategy<Value = Sample> {
    let hostile = prop_oneof![
        any::<f64>(),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(5e-324),
        Just(1e300),
    ];
    let time = -9_223_372_036_854i64..=9_223_372_036_854;
    (time, vec(section_with(hostile), 0..14))
        .prop_map(|(time_ms, sections)| Sample { time_ms, sections: List::first(sections).0 })
}

fn label() -> impl Strategy<Value = Label> {
    (text(), text()).prop_map(|(key, value)| Label { key, value })
}

fn facts() -> impl Strategy<Value = Facts> {
    let fact = || option::of(text());
    (fact(), fact(), fact(), fact(), option::of(small()), option::of(count()), option::of(signed())).prop_map(
        |(os, kernel, architecture, cpu_model, cpus, memory, boot_time)| Facts {
            os,
            kernel,
            architecture,
            cpu_model,
            cpus,
            memory,
            boot_time,
        },
    )
}

fn hello() -> impl Strategy<Value = Hello> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>(), any::<[u8; 32]>());
    let words = (text(), option::of(text()), text());
    (any::<u16>(), ids, words, list(label()), facts(), [small(), small()]).prop_map(
        |(protocol, (host, run, secret), (client_version, token, name), labels, facts, intervals)| Hello {
            protocol,
            client_version,
            host: HostId(host),
            run: RunId(run),
            secret: Secret(secret),
            token,
            name,
            labels,
            facts,
            interval_ms: intervals[0],
            shortest_interval_ms: intervals[1],
            clock_ms: 0,
        },
    )
}

/// Anything that a client can say.
pub(crate) fn client_message() -> impl Strategy<Value = ClientMessage> {
    let samples = (count(), any::<bool>(), list(sample())).prop_map(|(batch, backlog, samples)| Samples {
        batch,
        backlog,
        samples,
    });
    prop_oneof![
        hello().prop_map(ClientMessage::Hello),
        samples.prop_map(ClientMessage::Samples),
        any::<[u8; 32]>().prop_map(|secret| NewSecret { secret: Secret(secret) }.into()),
        sample().prop_map(|sample| LiveSample { sample }.into()),
        any::<u16>().prop_map(|reason| Bye { reason: reason.into() }.into()),
        list(any::<[u8; 32]>()).prop_map(|pins| Learnt { pins }.into()),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let limits =
        (small(), small()).prop_map(|(frame_bytes, batch_samples)| Limits { frame_bytes, batch_samples });
    let times = (signed(), signed());
    (any::<u16>(), text(), text(), times, small(), limits, list(any::<[u8; 32]>()), any::<bool>()).prop_map(
        |(protocol, server_version, name, times, window, limits, pins, rotate_secret)| Welcome {
            protocol,
            server_version,
            server_time_ms: times.0,
            name,
            window,
            limits,
            oldest_ms: times.1,
            pins,
            rotate_secret,
        },
    )
}

fn ack() -> impl Strategy<Value = Ack> {
    let refused = (signed(), any::<u16>())
        .prop_map(|(time_ms, reason)| RefusedSample { time_ms, reason: reason.into() });
    (signed(), list(count()), list(refused)).prop_map(|(server_time_ms, batches, refused)| Ack {
        server_time_ms,
        batches,
        refused,
    })
}

/// Anything that a server can say.
pub(crate) fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![
        welcome().prop_map(ServerMessage::Welcome),
        ack().prop_map(ServerMessage::Ack),
        (small(), small()).prop_map(|(interval_ms, lease_ms)| SetInterval { interval_ms, lease_ms }.into()),
        (any::<u16>(), text(), any::<bool>()).prop_map(|(code, text, retry)| Refused {
            code: code.into(),
            text,
            retry
        }
        .into()),
        list(any::<[u8; 32]>()).prop_map(|pins| Pins { pins }.into()),
    ]
}

/// A record of the journal.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    (any::<[u8; 16]>(), signed(), any::<bool>(), vec(sample(), 0..3)).prop_map(
        |(host, received_ms, backlog, samples)| Record { host: HostId(host), received_ms, backlog, samples },
    )
}
