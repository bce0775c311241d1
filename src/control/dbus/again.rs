//! The way back onto a bus that had gone.

use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::{Bus, Lost, Orders, Service, serve};

/// How often to try.
const INTERVAL: Duration = Duration::from_secs(2);

/// As [`serve`], as soon as that can be done: when there is a bus again, and nobody else has our names there. Waits for it.
pub fn serve_again(bus: &Bus, orders: &Orders) -> (Service, Receiver<Lost>) {
    let mut told = None;
    loop {
        let why = match serve(bus, orders) {
            Ok(served) => return served,
            Err(error) => error.to_string(),
        };
        if told.as_ref() != Some(&why) {
            log::warn!("trying again until the system bus has us: {why}");
            told = Some(why);
        }
        thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::status;
    use super::super::tests::{PrivateBus, SOON, daemon};
    use super::*;
    use crate::control::tests::example;

    #[test]
    fn we_are_there_again_when_there_is_a_bus_again() {
        let mut bus = PrivateBus::new();
        let (orders, receiver) = Orders::new();
        daemon(receiver);
        let (before, lost) = serve(&bus.bus, &orders).expect("the names are free");
        bus.end();
        assert_eq!(lost.recv_timeout(SOON), Ok(Lost::Bus));
        let address = bus.bus.clone();
        let served = thread::spawn(move || serve_again(&address, &orders));
        bus.start();
        let (_again, lost) = served.join().expect("it comes back");
        drop(before);
        assert_eq!(status(&bus.bus).expect("we are there"), example());
        assert!(lost.try_recv().is_err());
    }
}
