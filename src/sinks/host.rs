//! Host: what weir itself uses of the machine, written at the scrape. What is not known makes no sample.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::host::cgroup::{Container, Cpu, Memory, Pressure, Resource};
use crate::host::machine::Machine;
use crate::host::process::Process;
use crate::host::{Host, Reading};
use crate::semconv::{self, Metric};
use crate::sinks::now::write;

/// Writes every family of it.
pub(super) fn write_all(encoder: &mut DescriptorEncoder<'_>, host: &Host) -> fmt::Result {
    let Reading { process, container, machine } = host.read();
    write_process(encoder, &process)?;
    write_container(encoder, &container)?;
    let Machine { cpu_usage, memory_used, memory_total } = machine;
    gauge(encoder, &semconv::SYSTEM_CPU_USAGE, cpu_usage)?;
    gauge(encoder, &semconv::SYSTEM_MEMORY_USED, memory_used)?;
    gauge(encoder, &semconv::SYSTEM_MEMORY_TOTAL, memory_total)
}

fn write_process(encoder: &mut DescriptorEncoder<'_>, process: &Process) -> fmt::Result {
    counter(encoder, &semconv::PROCESS_CPU, process.cpu_seconds)?;
    gauge(encoder, &semconv::PROCESS_OPEN_FDS, process.open_fds)?;
    gauge(encoder, &semconv::PROCESS_MAX_FDS, process.max_fds)?;
    gauge(encoder, &semconv::PROCESS_VIRTUAL_MEMORY, process.virtual_memory)?;
    gauge(encoder, &semconv::PROCESS_VIRTUAL_MEMORY_MAX, process.virtual_memory_max)?;
    gauge(encoder, &semconv::PROCESS_RESIDENT_MEMORY, process.resident_memory)?;
    gauge(encoder, &semconv::PROCESS_START_TIME, process.started_at)?;
    gauge(encoder, &semconv::PROCESS_THREADS, process.threads)
}

fn write_container(encoder: &mut DescriptorEncoder<'_>, container: &Container) -> fmt::Result {
    let Memory { working_set, limit, oom_kills } = container.memory;
    gauge(encoder, &semconv::CGROUP_MEMORY_WORKING_SET, working_set)?;
    gauge(encoder, &semconv::CGROUP_MEMORY_LIMIT, limit)?;
    counter(encoder, &semconv::CGROUP_MEMORY_OOM_KILLS, oom_kills)?;
    let Cpu { quota_cores, periods, throttled_periods, throttled } = container.cpu;
    gauge(encoder, &semconv::CGROUP_CPU_QUOTA, quota_cores)?;
    counter(encoder, &semconv::CGROUP_CPU_PERIODS, periods)?;
    counter(encoder, &semconv::CGROUP_CPU_THROTTLED_PERIODS, throttled_periods)?;
    counter(encoder, &semconv::CGROUP_CPU_THROTTLED, throttled.map(|time| time.as_secs_f64()))?;
    let each = |time: fn(&Pressure) -> Option<Duration>| {
        let told = Resource::ALL.into_iter().zip(&container.pressure);
        told.filter_map(move |(resource, it)| Some(([resource.as_str()], ConstCounter::new(time(it)?.as_secs_f64()))))
    };
    write(encoder, &semconv::CGROUP_PRESSURE_WAITING, each(|it| it.waiting))?;
    write(encoder, &semconv::CGROUP_PRESSURE_STALLED, each(|it| it.stalled))
}

fn gauge<N: EncodeGaugeValue>(encoder: &mut DescriptorEncoder<'_>, metric: &Metric, value: Option<N>) -> fmt::Result {
    write(encoder, metric, value.map(|value| ([], ConstGauge::new(value))))
}

fn counter<N: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    value: Option<N>,
) -> fmt::Result {
    write(encoder, metric, value.map(|value| ([], ConstCounter::new(value))))
}
