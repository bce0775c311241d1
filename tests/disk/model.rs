//! What a disk must hold, said naively: for each block what it may hold now, and what it may hold after a loss of power.
//!
//! A block is a word, again and again. As long as nothing fails there is one word that it may hold now. After a loss of
//! power it may hold that, or whatever it has held since it was last known to be on stable storage. Of an atomic write, over
//! which nothing else was written, all blocks hold what it wrote then, or all hold what they may have held before.

use std::ops::Range;

/// What a block holds, again and again.
pub(crate) type Word = u64;

/// What a block may hold.
#[derive(Clone, Debug)]
struct Block {
    now: Vec<Word>,
    after_power_loss: Vec<Word>,
}

/// An atomic write over which nothing was written yet.
struct Atomic {
    range: Range<usize>,
    word: Word,
    /// What each of its blocks may have held after a loss of power if it had not been.
    before: Vec<Vec<Word>>,
}

pub(crate) struct Model {
    blocks: Vec<Block>,
    atomic: Vec<Atomic>,
}

impl Model {
    /// A disk of zeros.
    pub(crate) fn new(blocks: usize) -> Model {
        let block = Block {
            now: vec![0],
            after_power_loss: vec![0],
        };
        Model {
            blocks: vec![block; blocks],
            atomic: Vec::new(),
        }
    }

    /// The only word that a block can hold now, if there is no doubt.
    pub(crate) fn certain(&self, block: usize) -> Option<Word> {
        match self.blocks[block].now[..] {
            [word] => Some(word),
            _ => None,
        }
    }

    /// What a block may hold now.
    pub(crate) fn possible(&self, block: usize) -> &[Word] {
        &self.blocks[block].now
    }

    /// These blocks are written atomically next, or may be.
    pub(crate) fn write_atomic(&mut self, range: Range<usize>, word: Word) {
        let before = self.blocks[range.clone()].iter();
        let before = before.map(|block| block.after_power_loss.clone()).collect();
        self.written_over(&range);
        self.atomic.push(Atomic {
            range,
            word,
            before,
        });
    }

    /// Others write in this range.
    pub(crate) fn written_over(&mut self, range: &Range<usize>) {
        self.atomic
            .retain(|one| one.range.end <= range.start || range.end <= one.range.start);
    }

    /// Checks what is there after a loss of power, and has been read.
    fn check_atomic(&mut self) {
        for one in std::mem::take(&mut self.atomic) {
            let words = self.blocks[one.range.clone()]
                .iter()
                .map(|block| block.now[0]);
            let is_new = words.clone().all(|word| word == one.word);
            let is_old = words
                .zip(&one.before)
                .all(|(word, before)| before.contains(&word));
            assert!(
                is_new || is_old,
                "an atomic write of {:?} is torn",
                one.range
            );
        }
    }

    /// A block was written: with one of these words.
    pub(crate) fn write(&mut self, block: usize, words: Vec<Word>) {
        let block = &mut self.blocks[block];
        block.after_power_loss.extend(&words);
        block.now = words;
    }

    /// A block was to be written, and nobody knows whether it was.
    pub(crate) fn may_have_written(&mut self, block: usize, word: Word) {
        let block = &mut self.blocks[block];
        block.now.push(word);
        block.after_power_loss.push(word);
    }

    /// A block was read.
    pub(crate) fn read(&mut self, block: usize, word: Word) {
        let may = &mut self.blocks[block].now;
        assert!(
            may.contains(&word),
            "block {block} holds {word:#x}, and not one of {may:#x?}"
        );
        *may = vec![word];
    }

    /// Somebody was told that what a block holds is on stable storage.
    pub(crate) fn make_durable(&mut self, block: usize) {
        let block = &mut self.blocks[block];
        block.after_power_loss.clone_from(&block.now);
    }

    /// Power was lost, and is back.
    pub(crate) fn lose_power(&mut self) {
        for block in &mut self.blocks {
            block.now.clone_from(&block.after_power_loss);
        }
    }

    /// What was read after a loss of power stays.
    pub(crate) fn settle(&mut self) {
        self.check_atomic();
        for block in &mut self.blocks {
            block.after_power_loss.clone_from(&block.now);
        }
    }
}
