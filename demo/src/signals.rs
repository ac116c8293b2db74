//! The few C library calls that std does not offer: waiting for signals and reaping children.
//!
//! Owns all unsafe code of this crate; never anything else.
#![allow(unsafe_code)]

use std::ffi::c_int;

/// Large enough for `sigset_t` of glibc and musl on Linux (1024 bits).
#[repr(C)]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn sigwait(set: *const SignalSet, signal: *mut c_int) -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

const SIG_BLOCK: c_int = 0;
const SIGINT: c_int = 2;
const SIGTERM: c_int = 15;
const SIGCHLD: c_int = 17;
const WNOHANG: c_int = 1;

/// Signals that are held back from now on, in this thread and all that it starts later.
pub struct Blocked(SignalSet);

/// Holds back SIGTERM, SIGINT and SIGCHLD, so that [`Blocked::wait_for_end`] can take them. As PID 1 this is what makes
/// SIGTERM count at all. To be called before any thread is started.
pub fn block() -> Blocked {
    let mut set = SignalSet([0; 16]);
    // SAFETY: `set` is a writable buffer at least as large as sigset_t; the null old mask is allowed.
    unsafe {
        sigemptyset(&mut set);
        for signal in [SIGINT, SIGTERM, SIGCHLD] {
            sigaddset(&mut set, signal);
        }
        sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut());
    }
    Blocked(set)
}

impl Blocked {
    /// Returns the number of the signal that ends the process; reaps children meanwhile.
    pub fn wait_for_end(&self) -> i32 {
        loop {
            let mut signal: c_int = 0;
            // SAFETY: both pointers are valid for the call; waitpid accepts a null status.
            let failed = unsafe { sigwait(&self.0, &mut signal) } != 0;
            if failed {
                return SIGTERM;
            }
            if signal != SIGCHLD {
                return signal;
            }
            // SAFETY: as above.
            while unsafe { waitpid(-1, std::ptr::null_mut(), WNOHANG) } > 0 {}
        }
    }
}

/// The sandbox's process: sleeps, reaps zombies, ends on SIGTERM or SIGINT.
pub fn pause() -> i32 {
    block().wait_for_end();
    0
}
