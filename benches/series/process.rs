//! What Linux says of running processes: processor time and memory. Elsewhere nothing is known.

use std::fs;

/// Clock ticks a second in /proc, on every Linux that there is (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// Seconds of processor time of a process, with those of its children that have ended.
pub(crate) fn cpu(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // What comes before may hold spaces: the program's name, in brackets. utime, stime, cutime, cstime are fields 14 to 17.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(4);
    Some(fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS)
}

/// The same of a process and all of its children.
pub(crate) fn cpu_of_family(id: u32) -> Option<f64> {
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let children = children.split_whitespace().filter_map(|child| cpu(child.parse().ok()?));
    Some(cpu(id)? + children.sum::<f64>())
}

/// The most memory that a process has had, in MiB.
pub(crate) fn peak(id: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}
