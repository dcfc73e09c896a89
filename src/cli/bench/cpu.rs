//! CPU time and memory of other processes, as Linux tells them in /proc.
//!
//! The kernel gives user and system time in hundredths of a second, though their sum is exact below that; a run of some
//! seconds is told to a hundredth. The time of a child that has ended counts as its parent's.

use std::{fs, io, time::Duration};

/// Ticks a second in /proc: `USER_HZ`, which is 100 on every platform that Linux and Rust share.
const TICK: Duration = Duration::from_millis(10);

/// How often the processes of a server are read again because one has ended meanwhile.
const TRIES: usize = 20;

/// What /proc/PID/stat says of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    own: u64,
    /// Of children that have ended and were waited for.
    ended: u64,
}

impl Stat {
    fn read(id: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::other("/proc/PID/stat is not as proc(5) describes it"))
    }

    /// The name in parentheses may hold anything; what counts comes after the last one.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<u64> =
            text.rsplit_once(')')?.1.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
        let ticks = |from: usize| Some(fields.get(from)? + fields.get(from + 1)?);
        Some(Self { parent: u32::try_from(*fields.first()?).ok()?, own: ticks(10)?, ended: ticks(12)? })
    }
}

fn time(ticks: u64) -> Duration {
    TICK * u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The CPU time that a process has used.
///
/// # Errors
/// There is no such process, or no /proc.
pub(super) fn of_process(id: u32) -> io::Result<Duration> {
    Ok(time(Stat::read(id)?.own))
}

/// The CPU time that a server has used with all its children, those that have ended included.
///
/// # Errors
/// As [`of_process`], and if its children never stand still.
pub(super) fn of_server(id: u32) -> io::Result<Duration> {
    for _ in 0..TRIES {
        let before = Stat::read(id)?;
        let children: u64 = children(id)?.iter().map(|child| child.own).sum();
        // A child that ended meanwhile may have been counted twice or not at all.
        if Stat::read(id)?.ended == before.ended {
            return Ok(time(before.own + before.ended + children));
        }
    }
    Err(io::Error::other("its processes come and go too fast to be counted"))
}

fn children(of: u32) -> io::Result<Vec<Stat>> {
    let ids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One that is gone by now is nobody's child.
    Ok(ids.filter_map(|id| Stat::read(id).ok()).filter(|stat| stat.parent == of).collect())
}

/// The most memory that a process has had resident, in bytes.
///
/// # Errors
/// As [`of_process`].
pub(super) fn most_resident(id: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("/proc/PID/status has no VmHWM"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_does_not_confuse() {
        let text = "17 (a) 9 (b c) S 4 17 17 0 -1 4194560 5 6 7 8 120 30 7 3 20 0 1 0 99 1 1";
        assert!(Stat::parse(text) == Some(Stat { parent: 4, own: 150, ended: 10 }));
    }

    #[test]
    fn time_that_was_spent_is_seen() {
        let id = std::process::id();
        let before = of_process(id).unwrap();
        let mut sum = 0_u64;
        while of_process(id).unwrap() < before + TICK * 3 {
            sum = (0..1_000_000).fold(sum, |sum, n| sum.wrapping_mul(31) ^ n);
        }
        assert!(std::hint::black_box(sum) != 1 && most_resident(id).unwrap() > 1_000_000);
    }
}
