//! What not every unit can do. Commands, and fields of commands, that need it are served only where it is there.

/// Something that a unit can do or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Feature {
    /// UNMAP gives blocks back (LBPU, SBC-3).
    Unmap,
    /// WRITE SAME with UNMAP=1 gives blocks back (LBPWS and LBPWS10, SBC-3).
    UnmapByWriteSame,
    /// How much space there is for blocks can be told.
    SpaceFigures,
    /// WRITE ATOMIC is served.
    AtomicWrites,
}

/// What a unit can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features(u8);

impl Features {
    /// Nothing that not every unit can do.
    pub const NONE: Features = Features(0);

    /// Everything.
    pub const ALL: Features = Features(u8::MAX);

    /// These, and the feature if the unit has it.
    #[must_use]
    pub const fn with(self, feature: Feature, has: bool) -> Features {
        let bit = 1 << feature as u8;
        Features(if has { self.0 | bit } else { self.0 & !bit })
    }

    /// Whether the unit has the feature.
    pub const fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u8) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_features_that_it_was_given() {
        let none = Features::NONE;
        let one = none.with(Feature::UnmapByWriteSame, true);
        assert!(!none.has(Feature::Unmap));
        assert!(!one.has(Feature::Unmap));
        assert!(one.has(Feature::UnmapByWriteSame));
        assert!(Features::ALL.has(Feature::Unmap));
        let but_one = Features::ALL.with(Feature::Unmap, false);
        assert!(!but_one.has(Feature::Unmap));
        assert!(but_one.has(Feature::UnmapByWriteSame));
    }
}
