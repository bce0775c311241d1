use super::*;

const OURS: u16 = 0x1f;

/// A datagram from little-endian bytes written by hand; tests run on little-endian machines.
fn datagram(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Netlink header for a message of `length` bytes in all, generic header for command `number`.
fn head(length: u8, number: u8) -> [u8; 20] {
    [
        length, 0, 0, 0, // length
        0x1f, 0, // type: our family
        0, 0, // flags
        0, 0, 0, 0, // sequence: none, it is a multicast
        0, 0, 0, 0, // port id: the kernel's
        number, 2, 0, 0, // command, version, reserved
    ]
}

/// DEVICE "tcm-user/0/a/pr//x;n=ab" (24 bytes with its NUL), MINOR 3, DEVICE_ID 7.
const DEVICE: &[u8] = b"\x1c\x00\x01\x00tcm-user/0/a/pr//x;n=ab\0\
    \x08\x00\x02\x00\x03\x00\x00\x00\
    \x08\x00\x08\x00\x07\x00\x00\x00";

fn one(datagram: &[u8]) -> DeviceEvent {
    let mut events = decode(OURS, datagram).expect("the message is good");
    assert_eq!(events.len(), 1);
    events.pop_front().expect("there is one")
}

#[test]
fn added_names_the_device_and_the_answer_to_give() {
    let event = one(&datagram(&[&head(64, 1), DEVICE]));
    assert_eq!(event.change, Change::Added);
    assert_eq!(event.device, "tcm-user/0/a/pr//x;n=ab");
    assert_eq!((event.minor, event.device_id), (3, 7));
    assert_eq!((event.request.done, event.request.device_id), (4, 7));
    event.request.leave();
}

#[test]
fn removed_is_answered_as_removed() {
    let event = one(&datagram(&[&head(64, 2), DEVICE]));
    assert_eq!(event.change, Change::Removed);
    assert_eq!(event.request.done, 5);
    event.request.leave();
}

#[test]
fn reconfigured_carries_the_new_value() {
    let config: &[u8] = b"\x0e\x00\x04\x00pr//y;a=b\0\x00\x00";
    let size: &[u8] = b"\x0c\x00\x05\x00\x00\x00\x00\x40\x01\x00\x00\x00";
    let write_cache: &[u8] = b"\x05\x00\x06\x00\x01\x00\x00\x00";
    let unknown: &[u8] = b"\x08\x00\x63\x00\x01\x00\x00\x00";
    let table = [
        (config, Setting::Config("pr//y;a=b".into())),
        (size, Setting::Size(0x1_4000_0000)),
        (write_cache, Setting::WriteCache(true)),
        (unknown, Setting::Other),
    ];
    for (value, setting) in table {
        let length = u8::try_from(64 + value.len()).expect("it is short");
        let event = one(&datagram(&[&head(length, 3), DEVICE, value]));
        assert_eq!(event.change, Change::Reconfigured(setting));
        assert_eq!(event.request.done, 6);
        event.request.leave();
    }
}

#[test]
fn an_answer_is_status_and_device_id() {
    let event = one(&datagram(&[&head(64, 1), DEVICE]));
    let encoded = |outcome| {
        let (number, attributes) = encode_done(&event.request, outcome);
        encode(OURS, number, VERSION, 0x0102_0304, &attributes)
    };
    let mut expected = [
        36, 0, 0, 0, // length
        0x1f, 0, // type: the family
        0x05, 0, // flags: REQUEST, ACK
        4, 3, 2, 1, // sequence
        0, 0, 0, 0, // port id: filled in by the kernel
        4, 2, 0, 0, // ADDED_DEVICE_DONE, version 2, reserved
        8, 0, 7, 0, 0, 0, 0, 0, // CMD_STATUS 0
        8, 0, 8, 0, 7, 0, 0, 0, // DEVICE_ID 7
    ];
    assert_eq!(encoded(Ok(())), expected);
    // -22, in two's complement
    expected[24..28].copy_from_slice(&[0xea, 0xff, 0xff, 0xff]);
    assert_eq!(encoded(Err(Errno::EINVAL)), expected);
    // An error without a number must not become a success.
    assert_eq!(encoded(Err(Errno::UnknownErrno)), expected);
    event.request.leave();
}

#[test]
fn features_are_one_byte() {
    let attributes = [attribute(attribute::SUPP_KERN_CMD_REPLY, 1_u8)];
    let expected = [
        28, 0, 0, 0, 0x1f, 0, 0x05, 0, 1, 0, 0, 0, 0, 0, 0, 0, // REQUEST, ACK
        7, 2, 0, 0, // SET_FEATURES
        5, 0, 9, 0, 1, 0, 0, 0, // SUPP_KERN_CMD_REPLY 1, padding
    ];
    let message = encode(OURS, command::SET_FEATURES, VERSION, 1, &attributes);
    assert_eq!(message, expected);
}

#[test]
fn messages_of_others_are_passed_over() {
    let mut other_family = datagram(&[&head(64, 1), DEVICE]);
    other_family[4] = 0x10;
    assert!(
        decode(OURS, &other_family)
            .expect("it is none of ours")
            .is_empty()
    );
    let unknown_command = datagram(&[&head(64, 99), DEVICE]);
    assert!(
        decode(OURS, &unknown_command)
            .expect("it is new to us")
            .is_empty()
    );
}

#[test]
fn two_messages_in_one_datagram_are_two_events() {
    let both = datagram(&[&head(64, 1), DEVICE, &head(64, 2), DEVICE]);
    let events = decode(OURS, &both).expect("both are good");
    let changes: Vec<_> = events.iter().map(|event| event.change.clone()).collect();
    assert_eq!(changes, [Change::Added, Change::Removed]);
    events.into_iter().for_each(|event| event.request.leave());
}

#[test]
fn bad_messages_are_errors() {
    let good = datagram(&[&head(64, 1), DEVICE]);
    for end in 1..good.len() {
        assert!(decode(OURS, &good[..end]).is_err(), "cut at {end}");
    }
    for (offset, value) in [
        (0, 15),
        (0, 0),
        (0, 65),
        (3, 0xff),
        (20, 0),
        (20, 3),
        (21, 9),
    ] {
        let mut bad = good.clone();
        bad[offset] = value;
        assert!(decode(OURS, &bad).is_err(), "byte {offset} = {value}");
    }
    let mut short_minor = good.clone();
    short_minor[48] = 6;
    assert!(decode(OURS, &short_minor).is_err());
    for (offset, what) in [
        (22, "names no device"),
        (50, "minor"),
        (58, "number of the device"),
    ] {
        let mut without = good.clone();
        without[offset] = 0x63;
        let error = decode(OURS, &without).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn a_device_name_that_is_no_text_does_not_stay_unanswered() {
    let mut odd = datagram(&[&head(64, 1), DEVICE]);
    odd[33] = 0xff;
    let event = one(&odd);
    assert!(event.device.contains('\u{fffd}'));
    event.request.leave();
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
        changes in proptest::collection::vec((0..64_usize, proptest::num::u8::ANY), 1..6),
    ) {
        let leave = |events: VecDeque<DeviceEvent>| {
            events.into_iter().for_each(|event| event.request.leave());
        };
        let _ = decode(OURS, &bytes).map(leave);
        let _ = decode_family(&bytes);
        let mut changed = datagram(&[&head(64, 1), DEVICE]);
        for (offset, value) in changes {
            changed[offset] = value;
        }
        let _ = decode(OURS, &changed).map(leave);
    }
}

#[test]
fn the_controller_of_this_kernel_is_found() {
    let mut requests = Requests::new().expect("every kernel has generic netlink");
    let family = requests.resolve("nlctrl").expect("it is always there");
    assert_eq!(family.id, 16);
    assert!(family.groups.iter().any(|(name, _)| name == "notify"));
    let listener = Listener::subscribe(family.id, family.groups[0].1).expect("all may listen");
    listener.discard().expect("there is nothing to throw away");
}

#[test]
fn a_missing_family_says_which_module_to_load() {
    let mut requests = Requests::new().expect("every kernel has generic netlink");
    let error = requests
        .resolve("TCM-NOBODY")
        .expect_err("there is no such family");
    assert!(
        error.to_string().contains("modprobe target_core_user"),
        "{error}"
    );
}

#[test]
fn a_refusal_carries_the_error_number() {
    let mut requests = Requests::new().expect("every kernel has generic netlink");
    let refused = requests.command(control::TYPE, 200, &[]);
    assert!(
        matches!(refused, Err(Failure::Refused(Errno::EOPNOTSUPP))),
        "{refused:?}"
    );
}

#[test]
fn pending_requests_are_ended_between_block_and_unblock() {
    let parameters = tempfile::tempdir().expect("a temporary directory");
    for name in ["block_netlink", "reset_netlink"] {
        std::fs::write(parameters.path().join(name), "").expect("it is writable");
    }
    let mut requests = Requests::new().expect("every kernel has generic netlink");
    let family = requests.resolve("nlctrl").expect("it is always there");
    let listener = Listener::subscribe(family.id, family.groups[0].1).expect("all may listen");
    end_pending(parameters.path(), || listener.discard()).expect("all files are there");
    let read = |name| std::fs::read_to_string(parameters.path().join(name));
    // The file keeps what a switch would forget: first 1, then 0.
    assert_eq!(read("block_netlink").expect("it is readable"), "10");
    assert_eq!(read("reset_netlink").expect("it is readable"), "1");
    std::fs::remove_file(parameters.path().join("reset_netlink")).expect("it is there");
    let error = end_pending(parameters.path(), || listener.discard()).expect_err("one is missing");
    assert!(error.to_string().contains("reset_netlink"), "{error}");
    assert_eq!(
        read("block_netlink").expect("it is readable"),
        "10",
        "nothing was blocked"
    );
}
