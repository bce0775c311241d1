//! The one room for `unsafe`: shared memory, the kernel's structures, and system calls on shared memory.
//!
//! Nothing outside this module sees a pointer. What the kernel side can write at any time is reached by
//! offset and copied, never borrowed.
#![allow(unsafe_code)]

pub mod alignment;
pub mod block;
pub mod inherited;
pub mod process;
pub mod region;
pub mod uapi;
pub mod uring;
pub mod vectored;
pub mod wait;
pub mod wake;
