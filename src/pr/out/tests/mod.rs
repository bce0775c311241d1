//! One module per part of PERSISTENT RESERVE OUT in SPC-4 r37.

mod checks;
mod effects;
mod movement;
mod order;
mod preempt;
mod properties;
mod register;
mod register_more;
mod reserve;
