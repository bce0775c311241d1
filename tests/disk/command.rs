//! Commands as the simulation thinks of them, and their bytes.

use std::ops::Range;

use fastrand::Rng;

use crate::model::Word;

/// How many blocks an atomic write has.
pub(crate) const ATOMIC: u64 = 4;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Read {
        fua: bool,
    },
    Write {
        word: Word,
        fua: bool,
    },
    WriteAndVerify {
        word: Word,
        compare: bool,
    },
    /// With what: `None` compares nothing.
    Verify {
        word: Option<Word>,
        one_block: bool,
    },
    CompareAndWrite {
        expected: Word,
        word: Word,
        fua: bool,
    },
    OrWrite {
        word: Word,
        fua: bool,
    },
    WriteAtomic {
        word: Word,
        fua: bool,
    },
    /// No word: NDOB.
    WriteSame {
        word: Option<Word>,
        unmap: bool,
    },
    Unmap,
    SynchronizeCache,
}

#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) action: Action,
    pub(crate) lba: u64,
    pub(crate) blocks: u64,
}

/// Few enough that blocks hold the same now and then, and with bits in common.
fn some_word(rng: &mut Rng) -> Word {
    [
        0,
        0,
        1,
        0x8000_0000_0000_0001,
        0x0100_0000_0000_0000,
        u64::MAX,
        rng.u64(..),
    ][rng.usize(0..7)]
}

impl Command {
    pub(crate) fn some(rng: &mut Rng, capacity: u64) -> Command {
        let lba = rng.u64(0..capacity);
        // Now and then past the end.
        let blocks = rng.u64(0..12).min(capacity + 1 - lba);
        let word = some_word(rng);
        let fua = rng.u8(0..4) == 0;
        let action = match rng.u8(0..27) {
            0..=5 => Action::Read { fua },
            6..=11 => Action::Write { word, fua },
            12 => Action::WriteAndVerify {
                word,
                compare: rng.bool(),
            },
            13 => Action::Verify {
                word: rng.bool().then_some(word),
                one_block: rng.bool(),
            },
            14..=16 => Action::CompareAndWrite {
                expected: some_word(rng),
                word,
                fua,
            },
            17 => Action::OrWrite { word, fua },
            24..=26 => Action::WriteAtomic { word, fua },
            18 | 19 => Action::WriteSame {
                word: rng.bool().then_some(word),
                unmap: rng.bool(),
            },
            20 | 21 => Action::Unmap,
            _ => Action::SynchronizeCache,
        };
        let (lba, blocks) = match action {
            // WSNZ
            Action::WriteSame { .. } => (lba, blocks.max(1)),
            // Now and then none.
            Action::WriteAtomic { .. } => (lba - lba % ATOMIC, ATOMIC.min(blocks * ATOMIC)),
            _ => (lba, blocks),
        };
        Command {
            action,
            lba,
            blocks,
        }
    }

    pub(crate) fn range(&self) -> Range<usize> {
        let from = usize::try_from(self.lba).unwrap();
        from..from + usize::try_from(self.blocks).unwrap()
    }

    /// The CDB, 16 bytes of room and more.
    pub(crate) fn cdb(&self) -> [u8; 32] {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let (opcode, flags) = match self.action {
            Action::Read { fua } => (0x88, flag(fua, 0x08)),
            Action::Write { fua, .. } => (0x8a, flag(fua, 0x08)),
            Action::WriteAndVerify { compare, .. } => (0x8e, flag(compare, 0x02)),
            Action::Verify { word: None, .. } => (0x8f, 0x00),
            Action::Verify { one_block, .. } => (0x8f, if one_block { 0x06 } else { 0x02 }),
            Action::CompareAndWrite { fua, .. } => (0x89, flag(fua, 0x08)),
            Action::OrWrite { fua, .. } => (0x8b, flag(fua, 0x08)),
            Action::WriteAtomic { fua, .. } => (0x9c, flag(fua, 0x08)),
            Action::WriteSame { word, unmap } => {
                (0x93, flag(unmap, 0x08) | flag(word.is_none(), 0x01))
            }
            Action::Unmap => (0x42, 0x00),
            Action::SynchronizeCache => (0x91, 0x00),
        };
        let mut cdb = [0; 32];
        cdb[..2].copy_from_slice(&[opcode, flags]);
        if self.action == Action::Unmap {
            cdb[8] = 24;
        } else {
            cdb[2..10].copy_from_slice(&self.lba.to_be_bytes());
            cdb[10..14].copy_from_slice(&u32::try_from(self.blocks).unwrap().to_be_bytes());
        }
        cdb
    }

    /// What it brings along.
    pub(crate) fn data_out(&self, block: usize) -> Vec<u8> {
        let blocks = usize::try_from(self.blocks).unwrap();
        let many = |word: Word, count: usize| word.to_be_bytes().repeat(block / 8 * count);
        match self.action {
            Action::Read { .. } | Action::SynchronizeCache => Vec::new(),
            Action::Verify { word: None, .. } | Action::WriteSame { word: None, .. } => Vec::new(),
            Action::Verify {
                word: Some(word),
                one_block: true,
            } => many(word, usize::from(blocks > 0)),
            Action::WriteSame {
                word: Some(word), ..
            } => many(word, 1),
            Action::Write { word, .. }
            | Action::WriteAndVerify { word, .. }
            | Action::OrWrite { word, .. }
            | Action::WriteAtomic { word, .. }
            | Action::Verify {
                word: Some(word),
                one_block: false,
            } => many(word, blocks),
            Action::CompareAndWrite { expected, word, .. } => {
                [many(expected, blocks), many(word, blocks)].concat()
            }
            Action::Unmap => {
                let mut list = vec![0, 22, 0, 16, 0, 0, 0, 0];
                list.extend(self.lba.to_be_bytes());
                list.extend(u32::try_from(self.blocks).unwrap().to_be_bytes());
                list.extend([0; 4]);
                list
            }
        }
    }

    /// How much it wants to be given.
    pub(crate) fn data_in(&self, block: usize) -> usize {
        match self.action {
            Action::Read { .. } => block * usize::try_from(self.blocks).unwrap(),
            _ => 0,
        }
    }

    /// Whether it must be on stable storage, if it is something that is written, once it is answered.
    pub(crate) fn is_durable(&self, write_back: bool) -> bool {
        match self.action {
            Action::WriteAndVerify { .. } => true,
            Action::Write { fua, .. }
            | Action::CompareAndWrite { fua, .. }
            | Action::OrWrite { fua, .. }
            | Action::WriteAtomic { fua, .. } => fua || !write_back,
            Action::WriteSame { .. } | Action::Unmap => !write_back,
            Action::Read { .. } | Action::Verify { .. } | Action::SynchronizeCache => false,
        }
    }
}
