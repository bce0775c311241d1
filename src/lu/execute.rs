//! What each command does, once it may run.

use super::task::{Pending, Reply, Response, Task, Told};
use super::{LogicalUnit, NexusId, Step};
use crate::pr::event::Act;
use crate::pr::{self, Change, Refusal};
use crate::scsi::cdb::{self, ByteCheck, CacheRange, Command};
use crate::scsi::commands::Row;
use crate::scsi::nexus::ItNexus;
use crate::scsi::sense::Sense;
use crate::scsi::{self, Blocks, Status, capacity, copy, inquiry, report};
use crate::store::{Against, Cancellation, Flush, Lane, Operation, Request};

/// The most bytes that a PRE-FETCH brings into the cache, which others need too.
const PRE_FETCH_MAX: u64 = 64 << 20;

impl LogicalUnit {
    pub(super) fn execute(&mut self, row: &Row, task: Task) -> Step {
        let command = match self.decode(row, &task) {
            Ok(command) => command,
            // A conflict goes before what is wrong with the fields. Of most commands the gate has said it already.
            Err(_) if self.conflicts(row, &task) => return self.conflict(task),
            Err(sense) => return Step::Answer(task.answer(sense.into())),
        };
        if !matches!(command, Command::ReceiveCopyStatus { .. }) {
            self.forget_copies(task.nexus);
        }
        let done = match command {
            Command::Read(transfer) => return self.read(row, task, &transfer),
            Command::Write(transfer) => return self.write(row, task, &transfer),
            Command::OrWrite(transfer) => return self.or_write(row, task, &transfer),
            Command::WriteAtomic(transfer) => return self.write_atomic(row, task, &transfer),
            Command::CompareAndWrite(transfer) => {
                return self.compare_and_write(row, task, &transfer);
            }
            Command::WriteAndVerify { transfer, compare } => {
                return self.write_and_verify(row, task, &transfer, compare);
            }
            Command::Verify(transfer, byte_check) => {
                return self.verify(row, task, &transfer, byte_check);
            }
            Command::WriteSame(asked) => return self.write_same(row, task, &asked),
            Command::Unmap {
                parameter_list_length,
            } => return self.unmap(row, task, parameter_list_length),
            Command::GetLbaStatus {
                lba,
                allocation_length,
            } => return self.lba_status(row, task, lba, allocation_length),
            Command::LogSense(asked) => return self.log_sense(row, task, asked),
            Command::PreFetch(range) => return self.pre_fetch(row, task, range),
            Command::SynchronizeCache(range) => {
                return match self.geometry.check_range(range.lba, range.blocks) {
                    Ok(()) => self.flush(row, task),
                    Err(sense) => Step::Answer(task.answer(sense.into())),
                };
            }
            // One host does not stop what others use: what it asks for is that nothing is lost in the cache.
            Command::StartStopUnit(asked) if !asked.no_flush => return self.flush(row, task),
            Command::SendDiagnostic { .. } => {
                return self.start(row, task, Operation::Examine, Told::Nothing);
            }
            // The medium can't be removed in any case.
            Command::StartStopUnit(_) | Command::PreventAllowMediumRemoval { .. } => Response::Good,
            Command::ExtendedCopy {
                parameter_list_length,
            } => return self.extended_copy(row, task, parameter_list_length),
            Command::ReceiveCopyStatus {
                list_identifier,
                allocation_length,
            } => self
                .copy_status(task.nexus, list_identifier)
                .map_or_else(Response::from, |bytes| data_in(bytes, allocation_length)),
            Command::ReceiveCopyOperatingParameters { allocation_length } => data_in(
                copy::operating_parameters(&self.geometry),
                allocation_length,
            ),
            Command::PersistentReserveOut { .. } | Command::Reserve | Command::Release => {
                return self.change(task, &command);
            }
            Command::PersistentReserveIn {
                service_action,
                allocation_length,
            } => {
                let read =
                    pr::read::answer(service_action, &self.reservations, &self.context.ports);
                let response =
                    read.map_or_else(Response::from, |bytes| data_in(bytes, allocation_length));
                return self.tell(task, response);
            }
            Command::TestUnitReady => Response::Good,
            Command::RequestSense {
                format,
                allocation_length,
            } => {
                let sense = self.current_condition(task.nexus);
                let (bytes, length) = sense.encode(format);
                data_in(bytes[..length].to_vec(), allocation_length)
            }
            Command::Inquiry {
                page: None,
                allocation_length,
            } => data_in(inquiry::standard(&self.identity), allocation_length),
            Command::Inquiry {
                page: Some(page),
                allocation_length,
            } => self.vital_product_data(task.nexus, page, allocation_length),
            Command::ModeSense(request) => self.mode_sense(&task, &request),
            Command::ModeSelect(request) => return self.mode_select(task, &request),
            Command::ReadCapacity10 => {
                data_in(capacity::read_capacity_10(&self.geometry), u32::MAX)
            }
            Command::ReadCapacity16 { allocation_length } => data_in(
                capacity::read_capacity_16(&self.geometry, &self.provisioning),
                allocation_length,
            ),
            Command::ReportSupportedOperationCodes {
                reporting,
                rctd,
                allocation_length,
            } => report::supported_operation_codes(reporting, rctd, self.features)
                .map_or_else(Response::from, |bytes| data_in(bytes, allocation_length)),
            Command::ReportSupportedTaskManagementFunctions {
                repd,
                allocation_length,
            } => data_in(
                report::supported_task_management_functions(repd),
                allocation_length,
            ),
        };
        Step::Answer(task.answer(done))
    }

    /// The command's fields, then the state of the medium: in this order (SAM-5).
    fn decode(&self, row: &Row, task: &Task) -> Result<Command, Sense> {
        let command = row.decode(&task.cdb, self.features)?;
        self.check_media(task.nexus, row.media)?;
        Ok(command)
    }

    fn read(&mut self, row: &Row, task: Task, transfer: &cdb::Transfer) -> Step {
        self.counters.reads += 1;
        let checked = self
            .check_transfer(transfer)
            .and_then(|()| match transfer.fua {
                true if self.state.flush_failed => Err(Sense::internal_target_failure()),
                _ => Ok(()),
            });
        if let Err(sense) = checked {
            return Step::Answer(task.answer(sense.into()));
        }
        let length = self
            .geometry
            .byte_length(transfer.blocks)
            .min(task.data.len());
        if length == 0 {
            return Step::Answer(task.answer(Response::Good));
        }
        // FUA asks for what is on the medium: what is newer in the cache goes there first.
        let flush = if transfer.fua {
            Flush::First
        } else {
            Flush::No
        };
        let offset = self.geometry.byte_offset(transfer.lba);
        self.start(
            row,
            task,
            Operation::Read {
                offset,
                length,
                flush,
            },
            Told::Data(length),
        )
    }

    fn write(&mut self, row: &Row, task: Task, transfer: &cdb::Transfer) -> Step {
        self.counters.writes += 1;
        let durability = self.durability(task.nexus, transfer.fua);
        self.write_out(row, task, transfer, |offset, length| Operation::Write {
            offset,
            length,
            durability,
        })
    }

    /// ORWRITE.
    fn or_write(&mut self, row: &Row, task: Task, transfer: &cdb::Transfer) -> Step {
        self.counters.writes += 1;
        let durability = self.durability(task.nexus, transfer.fua);
        self.write_out(row, task, transfer, |offset, length| Operation::OrWrite {
            offset,
            length,
            durability,
        })
    }

    /// WRITE ATOMIC. What is past the end is that, whatever its length.
    fn write_atomic(&mut self, row: &Row, task: Task, transfer: &cdb::Transfer) -> Step {
        self.counters.writes += 1;
        let checked = self
            .check_transfer(transfer)
            .and_then(|()| self.geometry.check_atomic_write(transfer));
        if let Err(sense) = checked {
            return Step::Answer(task.answer(sense.into()));
        }
        let durability = self.durability(task.nexus, transfer.fua);
        self.write_out(row, task, transfer, |offset, length| {
            Operation::WriteAtomic {
                offset,
                length,
                durability,
            }
        })
    }

    /// COMPARE AND WRITE. Its data-out is what is expected to be there, and then as much to be written.
    fn compare_and_write(&mut self, row: &Row, task: Task, transfer: &cdb::Transfer) -> Step {
        self.counters.writes += 1;
        let length = self.geometry.byte_length(transfer.blocks);
        let checked = self.check_transfer(transfer);
        if let Err(sense) = checked.and_then(|()| check_data_out(&task, 2 * length)) {
            return Step::Answer(task.answer(sense.into()));
        }
        if length == 0 {
            return Step::Answer(task.answer(Response::Good));
        }
        let operation = Operation::CompareAndWrite {
            offset: self.geometry.byte_offset(transfer.lba),
            length,
            durability: self.durability(task.nexus, transfer.fua),
        };
        self.start(row, task, operation, Told::Difference)
    }

    /// WRITE AND VERIFY. Durable whatever the cache mode is: it could not be verified otherwise.
    fn write_and_verify(
        &mut self,
        row: &Row,
        task: Task,
        transfer: &cdb::Transfer,
        compare: bool,
    ) -> Step {
        self.counters.writes += 1;
        let against = if compare {
            Against::Data
        } else {
            Against::Nothing
        };
        self.write_out(row, task, transfer, |offset, length| {
            Operation::WriteAndVerify {
                offset,
                length,
                against,
            }
        })
    }

    /// Starts a command that writes its data-out.
    fn write_out(
        &mut self,
        row: &Row,
        task: Task,
        transfer: &cdb::Transfer,
        operation: impl FnOnce(u64, u64) -> Operation,
    ) -> Step {
        let length = self.geometry.byte_length(transfer.blocks);
        let checked = self.check_transfer(transfer);
        if let Err(sense) = checked.and_then(|()| check_data_out(&task, length)) {
            return Step::Answer(task.answer(sense.into()));
        }
        if length == 0 {
            return Step::Answer(task.answer(Response::Good));
        }
        let offset = self.geometry.byte_offset(transfer.lba);
        self.start(row, task, operation(offset, length), Told::Nothing)
    }

    /// VERIFY. What it looks at is what is on the medium: what is newer in the cache goes there first, as for FUA
    /// (SBC-3, caches).
    fn verify(
        &mut self,
        row: &Row,
        task: Task,
        transfer: &cdb::Transfer,
        byte_check: ByteCheck,
    ) -> Step {
        let length = self.geometry.byte_length(transfer.blocks);
        let block = u64::from(self.geometry.block_size());
        let (against, data_out) = match byte_check {
            ByteCheck::Nothing => (Against::Nothing, None),
            ByteCheck::All => (Against::Data, Some(length)),
            ByteCheck::One => (Against::Repeated(block), Some(block)),
        };
        let checked = self.check_transfer(transfer).and_then(|()| {
            if self.state.flush_failed {
                return Err(Sense::internal_target_failure());
            }
            match data_out {
                Some(data_out) if length > 0 => check_data_out(&task, data_out),
                _ => Ok(()),
            }
        });
        if let Err(sense) = checked {
            return Step::Answer(task.answer(sense.into()));
        }
        if length == 0 {
            return Step::Answer(task.answer(Response::Good));
        }
        let offset = self.geometry.byte_offset(transfer.lba);
        self.start(
            row,
            task,
            Operation::Verify {
                offset,
                length,
                against,
            },
            Told::Nothing,
        )
    }

    /// PRE-FETCH. GOOD and not CONDITION MET, which would promise that all of it is in the cache, and stays there.
    fn pre_fetch(&mut self, row: &Row, task: Task, range: CacheRange) -> Step {
        if let Err(sense) = self.geometry.check_range(range.lba, range.blocks) {
            return Step::Answer(task.answer(sense.into()));
        }
        let offset = self.geometry.byte_offset(range.lba);
        let length = match range.blocks {
            Blocks(0) => self.geometry.byte_length(self.geometry.blocks()) - offset,
            blocks => self.geometry.byte_length(blocks),
        };
        let length = length.min(PRE_FETCH_MAX);
        self.start(
            row,
            task,
            Operation::PreFetch { offset, length },
            Told::Nothing,
        )
    }

    /// SYNCHRONIZE CACHE, START STOP UNIT. IMMED makes no difference: the answer waits, and so tells of errors.
    fn flush(&mut self, row: &Row, task: Task) -> Step {
        self.start(row, task, Operation::Flush, Told::Nothing)
    }

    pub(super) fn start(
        &mut self,
        row: &Row,
        task: Task,
        operation: Operation,
        told: Told,
    ) -> Step {
        let key = self.tasks.begin(task.nexus, row.access_of(&task.cdb));
        // Whatever hangs of one I_T nexus, the others are served. The number is not given to another meanwhile.
        let lane = Lane(task.nexus.0);
        let cancellation = match operation {
            // What an aborted command has done until then may stay.
            Operation::Verify { .. }
            | Operation::CompareAndWrite { .. }
            | Operation::OrWrite { .. }
            | Operation::Unmap { .. }
            | Operation::WriteSame { .. } => self.tasks.make_cancellable(key, task.tag()),
            _ => Cancellation::default(),
        };
        let (data, pending) = task.suspend(key, told);
        let request = Request {
            lane,
            operation,
            data,
            cancellation,
        };
        self.begin_operation(request, pending)
    }

    /// Begins an operation, as soon as nothing is in flight that it must not meet.
    pub(super) fn begin_operation(&mut self, request: Request, pending: Pending) -> Step {
        let begun = self.parts.begin(&mut self.tasks, request, pending);
        begun.map_or(Step::Held, |(request, pending)| Step::Io(request, pending))
    }

    fn check_transfer(&self, transfer: &cdb::Transfer) -> Result<(), Sense> {
        self.geometry.check_transfer_length(transfer)?;
        self.geometry.check_range(transfer.lba, transfer.blocks)
    }

    /// The unit attention that REQUEST SENSE reports and clears, or else what state the unit is in.
    fn current_condition(&mut self, nexus: NexusId) -> Sense {
        let state = if self.fenced {
            Sense::manual_intervention_required()
        } else if self.state.flush_failed {
            Sense::internal_target_failure()
        } else {
            Sense::no_additional_sense_information()
        };
        self.nexuses[nexus.0].attentions.take().unwrap_or(state)
    }

    fn vital_product_data(&self, nexus: NexusId, page: u8, allocation_length: u32) -> Response {
        let nexus = self.nexuses[nexus.0].nexus.as_deref();
        let own = nexus.and_then(|ItNexus { target_port, .. }| {
            Some(inquiry::Port {
                relative: self.context.ports.relative(target_port)?,
                protocol: target_port.protocol,
            })
        });
        let ports = inquiry::Ports {
            own,
            all: self.served_ports.as_deref(),
        };
        let (identity, geometry) = (&self.identity, &self.geometry);
        inquiry::vital_product_data(page, identity, geometry, &self.provisioning, &ports)
            .map_or_else(Response::from, |bytes| data_in(bytes, allocation_length))
    }

    /// Whether a command that changes reservations conflicts with them, whatever is wrong with its CDB.
    pub(super) fn conflicts(&self, row: &Row, task: &Task) -> bool {
        let decided = row
            .decode_what_is_served(&task.cdb)
            .ok()
            .and_then(|command| self.decide(task, &command));
        matches!(decided, Some(Err(Refusal::Conflict)))
    }

    /// What a command changes of the reservations; `None` if it is none of those that can.
    fn decide(&self, task: &Task, command: &Command) -> Option<Result<Change, Refusal>> {
        let can = matches!(
            command,
            Command::Reserve | Command::Release | Command::PersistentReserveOut { .. }
        );
        if !can {
            return None;
        }
        let Some(issuer) = &self.nexuses[task.nexus.0].nexus else {
            return Some(Err(Sense::internal_target_failure().into()));
        };
        Some(match *command {
            Command::Reserve => pr::spc2::reserve(&self.reservations, issuer),
            Command::Release => pr::spc2::release(&self.reservations, issuer),
            Command::PersistentReserveOut {
                service_action,
                scope_and_type,
                parameter_list_length,
            } => {
                let cdb = pr::out::Cdb {
                    service_action,
                    scope_type: scope_and_type,
                    parameter_list_length,
                };
                let length = parameter_list_length.min(pr::out::PARAMETER_LIST_LENGTH_MAX);
                let list = task.parameter_list(length);
                pr::out::answer(&self.reservations, issuer, cdb, &list, &self.context)
            }
            _ => return None,
        })
    }

    fn change(&mut self, task: Task, command: &Command) -> Step {
        match self.decide(&task, command).expect("it is one that can") {
            Ok(change) => {
                if matches!(command, Command::Reserve) {
                    self.reserves.number += 1;
                }
                let act = Act::of_cdb(&task.cdb).expect("it is one that can");
                self.store_of(change, task, act)
            }
            Err(Refusal::Conflict) if self.is_doubtful(&task, command) => self.doubt(task),
            Err(Refusal::Conflict) => self.conflict(task),
            Err(Refusal::Check(sense)) => Step::Answer(task.answer(sense.into())),
        }
    }

    /// Refuses a command that changes reservations, since it conflicts with them.
    pub(super) fn conflict(&mut self, task: Task) -> Step {
        self.refuse(&task);
        self.tell(task, Response::Status(Status::ReservationConflict))
    }

    /// Answers with what a host may conclude from that another has lost access: not before that is so.
    fn tell(&mut self, task: Task, response: Response) -> Step {
        self.hold_back(Reply::Command {
            nexus: task.nexus,
            answer: task.answer(response),
            changed: false,
        })
    }
}

/// Refuses a command whose data-out does not have the length that its CDB says: of one that is at odds with itself,
/// nothing is written. Where the CDB moves none, there may be some.
pub(super) fn check_data_out(task: &Task, length: u64) -> Result<(), Sense> {
    if length > 0 && task.data.len() != length {
        return Err(Sense::invalid_field_in_command_information_unit());
    }
    Ok(())
}

/// A data-in answer, cut to the allocation length.
pub(super) fn data_in(bytes: Vec<u8>, allocation_length: u32) -> Response {
    Response::DataIn(scsi::truncate(bytes, allocation_length))
}
