//! What the node's configuration file says of backstores whose config string is silent.

use super::{
    DIRECT, FORCE_APTPL, Options, REGISTRATIONS, SPEC_I_PT_KNOWN_ONLY, THIN_THRESHOLD, Threshold,
};

/// What holds for backstores whose config string is silent about it.
///
/// Only options that make no other disk of one, and let nobody at it who could not get at it before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// As `direct=`.
    pub direct: bool,
    /// As `thin_threshold=`; `None` for no warning. Where nobody can tell how much space is left, it does not hold.
    pub thin_threshold: Option<u8>,
    /// As `force_aptpl=`.
    pub force_aptpl: bool,
    /// As `registrations=`.
    pub registrations: Option<u16>,
    /// As `spec_i_pt_known_only=`.
    pub spec_i_pt_known_only: bool,
}

impl Options {
    /// The same, with these defaults where the config string is silent.
    pub fn with(mut self, defaults: &Defaults) -> Options {
        let silent = |option| !self.said.contains(&option);
        if silent(DIRECT) {
            self.disk.direct = defaults.direct;
        }
        if silent(THIN_THRESHOLD) {
            self.disk.thin_threshold = defaults.thin_threshold.map(|percent| Threshold {
                percent,
                demanded: false,
            });
        }
        if silent(FORCE_APTPL) {
            self.reservations.force_aptpl = defaults.force_aptpl;
        }
        if silent(REGISTRATIONS) {
            self.reservations.registrations = defaults.registrations;
        }
        if silent(SPEC_I_PT_KNOWN_ONLY) {
            self.reservations.spec_i_pt_known_only = defaults.spec_i_pt_known_only;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DiskOptions, ReservationOptions};
    use super::*;

    const ALL: Defaults = Defaults {
        direct: true,
        thin_threshold: Some(5),
        force_aptpl: true,
        registrations: Some(200),
        spec_i_pt_known_only: true,
    };

    fn with(text: &str, defaults: &Defaults) -> (DiskOptions, ReservationOptions) {
        let options = Options::parse(text).expect(text).with(defaults);
        (options.disk, options.reservations)
    }

    #[test]
    fn what_the_config_string_does_not_say_the_file_says() {
        let disk = DiskOptions {
            read_only: false,
            direct: true,
            physical_block_size: None,
            thin_threshold: Some(Threshold {
                percent: 5,
                demanded: false,
            }),
        };
        let reservations = ReservationOptions {
            force_aptpl: true,
            registrations: Some(200),
            spec_i_pt_known_only: true,
        };
        assert_eq!(with("/srv/x", &ALL), (disk, reservations));
    }

    #[test]
    fn what_the_config_string_says_holds() {
        let no = "/srv/x;direct=0;thin_threshold=0;force_aptpl=0;registrations=1024;spec_i_pt_known_only=0";
        let (disk, reservations) = with(no, &ALL);
        assert_eq!(disk, DiskOptions::default());
        assert_eq!(
            reservations,
            ReservationOptions {
                registrations: Some(1024),
                ..ReservationOptions::default()
            }
        );
        let yes = "/srv/x;direct=1;thin_threshold=7;force_aptpl=1;registrations=300;spec_i_pt_known_only=1";
        assert_eq!(with(yes, &Defaults::default()), with(yes, &ALL));
        let (disk, _) = with(yes, &ALL);
        let demanded = Threshold {
            percent: 7,
            demanded: true,
        };
        assert_eq!(disk.thin_threshold, Some(demanded));
    }

    #[test]
    fn defaults_that_say_nothing_change_nothing() {
        let text = "/srv/x;read_only=1;physical_block_size=4096;copy_domain=a";
        let options = Options::parse(text).expect(text);
        assert_eq!(options.clone().with(&Defaults::default()), options);
    }
}
