//! WRITE SAME, UNMAP, GET LBA STATUS and LOG SENSE.

use super::execute::{check_data_out, data_in};
use super::task::{Response, Task, Told};
use super::{LogicalUnit, Step};
use crate::scsi::cdb::{LogSense, WriteSame};
use crate::scsi::commands::Row;
use crate::scsi::log::{self, Page, Resources};
use crate::scsi::provisioning::{self, BlockRange, LbaStatus};
use crate::scsi::sense::Sense;
use crate::scsi::{Blocks, Lba};
use crate::store::space::{Extent, Figures};
use crate::store::{Content, Operation, Spare};

impl LogicalUnit {
    /// WRITE SAME. With UNMAP=1, too, the blocks read as what was written: only zeros are given back.
    pub(super) fn write_same(&mut self, row: &Row, task: Task, asked: &WriteSame) -> Step {
        self.counters.writes += 1;
        let WriteSame {
            range,
            unmap,
            has_data,
        } = *asked;
        let block = u64::from(self.geometry.block_size());
        let checked = self.geometry.check_range(range.lba, range.blocks);
        let data_out = if has_data { block } else { 0 };
        if let Err(sense) = checked.and_then(|()| check_data_out(&task, data_out)) {
            return Step::Answer(task.answer(sense.into()));
        }
        let operation = Operation::WriteSame {
            offset: self.geometry.byte_offset(range.lba),
            length: self.geometry.byte_length(range.blocks),
            content: if has_data {
                Content::Block(block)
            } else {
                Content::Zeros
            },
            spare: if unmap { Spare::GiveBack } else { Spare::Keep },
            durability: self.durability(task.nexus, false),
        };
        self.start(row, task, operation, Told::Nothing)
    }

    /// UNMAP. Nothing is given back before all of the list has been found good.
    pub(super) fn unmap(&mut self, row: &Row, task: Task, parameter_list_length: u32) -> Step {
        let list = task.parameter_list(parameter_list_length);
        let parsed = provisioning::parse_unmap(&list, parameter_list_length, &self.geometry);
        let ranges = match parsed {
            Ok(ranges) if ranges.is_empty() => return Step::Answer(task.answer(Response::Good)),
            Ok(ranges) => ranges,
            Err(sense) => return Step::Answer(task.answer(sense.into())),
        };
        let bytes = |range: &BlockRange| {
            let offset = self.geometry.byte_offset(range.lba);
            offset..offset + self.geometry.byte_length(range.blocks)
        };
        let operation = Operation::Unmap {
            ranges: ranges.iter().map(bytes).collect(),
            durability: self.durability(task.nexus, false),
        };
        self.start(row, task, operation, Told::Nothing)
    }

    /// GET LBA STATUS: from the block asked for on, for as many parts as there is room for.
    pub(super) fn lba_status(
        &mut self,
        row: &Row,
        task: Task,
        lba: Lba,
        allocation_length: u32,
    ) -> Step {
        if let Err(sense) = self.geometry.check_range(lba, Blocks(0)) {
            return Step::Answer(task.answer(sense.into()));
        }
        let offset = self.geometry.byte_offset(lba);
        let operation = Operation::Extents {
            offset,
            length: self.geometry.byte_length(self.geometry.blocks()) - offset,
            block: self.geometry.block_size().into(),
            most: provisioning::status_descriptors(allocation_length),
        };
        self.start(row, task, operation, Told::Extents(allocation_length))
    }

    /// The answer to GET LBA STATUS.
    pub(super) fn extents_found(&self, extents: &[Extent], allocation_length: u32) -> Response {
        let block = u64::from(self.geometry.block_size());
        let status = |extent: &Extent| LbaStatus {
            range: BlockRange {
                lba: Lba(extent.range.start / block),
                blocks: Blocks((extent.range.end - extent.range.start) / block),
            },
            is_mapped: extent.is_allocated,
        };
        let ranges: Vec<LbaStatus> = extents.iter().map(status).collect();
        let bytes = provisioning::lba_status(&ranges);
        data_in(bytes, allocation_length)
    }

    /// Little space is left for what initiators write: each is told.
    pub fn soft_threshold_reached(&mut self) {
        self.tell_all(Sense::thin_provisioning_soft_threshold_reached(), None);
    }

    /// LOG SENSE.
    pub(super) fn log_sense(&mut self, row: &Row, task: Task, asked: LogSense) -> Step {
        let response = match log::find(&asked) {
            Ok(Page::Provisioning) => {
                return self.start(row, task, Operation::Figures, Told::Figures(asked));
            }
            Ok(Page::Supported) => data_in(log::supported_pages(), asked.allocation_length),
            Err(sense) => sense.into(),
        };
        Step::Answer(task.answer(response))
    }

    /// The Logical Block Provisioning log page.
    pub(super) fn figures_found(&self, figures: &Figures, asked: &LogSense) -> Response {
        let sets = |bytes| provisioning::threshold_sets(bytes, &self.geometry);
        let resources = Resources {
            available: sets(figures.available),
            used: sets(figures.used),
        };
        data_in(log::provisioning(asked, resources), asked.allocation_length)
    }
}
