//! Devices.

use zcmi::verbs::Device;

use crate::support::with_device;

#[test]
fn the_device_is_listed_and_opens_by_name() {
    with_device(|fixture| {
        let name = fixture.context.name();
        assert!(Device::list().expect("devices").iter().any(|device| device.name() == name));
        assert_eq!(zcmi::verbs::Context::open(name).expect("opens").name(), name);
    });
}

#[test]
fn a_device_that_is_not_there_is_an_error() {
    with_device(|_| {
        let error = zcmi::verbs::Context::open("no_such_device").expect_err("there is none");
        assert_eq!(error.errno(), Some(libc::ENODEV));
    });
}
