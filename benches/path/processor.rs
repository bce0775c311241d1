//! One processor, and what was used of it.

use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

/// Keeps this process, and the threads and programs that it starts from now on, to the last processor that it may use.
pub(crate) fn keep_to_one() {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).unwrap();
    let last = (0..CpuSet::count()).rev();
    let last = last
        .into_iter()
        .find(|&processor| allowed.is_set(processor).unwrap());
    let mut one = CpuSet::new();
    one.set(last.expect("it runs on one")).unwrap();
    sched_setaffinity(this, &one).unwrap();
}

/// Lets threads that are started from now on use any.
pub(crate) fn use_all() {
    let mut all = CpuSet::new();
    // Those that are not there are left out by the system.
    (0..CpuSet::count()).for_each(|processor| all.set(processor).unwrap());
    sched_setaffinity(Pid::from_raw(0), &all).unwrap();
}

/// What the threads of this process have used of processors.
pub(crate) fn used() -> Duration {
    of(UsageWho::RUSAGE_SELF)
}

/// What this thread has used of processors.
pub(crate) fn used_by_this_thread() -> Duration {
    of(UsageWho::RUSAGE_THREAD)
}

/// What the programs have used that this one has started and that have ended.
pub(crate) fn used_by_children() -> Duration {
    of(UsageWho::RUSAGE_CHILDREN)
}

fn of(who: UsageWho) -> Duration {
    let usage = getrusage(who).unwrap();
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Duration::from_micros(microseconds.try_into().unwrap())
}
