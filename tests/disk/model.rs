//! What a disk must hold, said naively: for each block what it may hold now, and what it may hold after a loss of power.
//!
//! A block is a word, again and again. As long as nothing fails there is one word that it may hold now. After a loss of
//! power it may hold that, or whatever it has held since it was last known to be on stable storage.

/// What a block holds, again and again.
pub(crate) type Word = u64;

/// What a block may hold.
#[derive(Clone, Debug)]
struct Block {
    now: Vec<Word>,
    after_power_loss: Vec<Word>,
}

pub(crate) struct Model {
    blocks: Vec<Block>,
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
        for block in &mut self.blocks {
            block.after_power_loss.clone_from(&block.now);
        }
    }
}
