//! Functions of librdmacm that the binding declares and does not carry: it opens the library at run time, and its
//! stubs leave these out. They are looked up in the library that it has opened.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

use rdma_sys as ffi;

use super::{Error, Result};

/// The functions; `None` where the installed library is too old to have one.
struct Functions {
    get_remote_ece: Ece,
    notify: Notify,
    reject_ece: Reject,
    set_local_ece: Ece,
}

type Ece = Option<unsafe extern "C" fn(*mut ffi::rdma_cm_id, *mut ffi::ibv_ece) -> c_int>;
type Notify = Option<unsafe extern "C" fn(*mut ffi::rdma_cm_id, u32) -> c_int>;
type Reject = Option<unsafe extern "C" fn(*mut ffi::rdma_cm_id, *const c_void, u8) -> c_int>;

/// `rdma_get_remote_ece(3)`.
///
/// # Safety
/// As the C function: the identifier exists, nobody changes it, and `ece` is writable for the call.
pub(super) unsafe fn get_remote_ece(id: *mut ffi::rdma_cm_id, ece: &mut ffi::ibv_ece) -> Result<c_int> {
    let function = Functions::loaded().get_remote_ece.ok_or_else(|| missing("rdma_get_remote_ece"))?;
    // SAFETY: the caller promises the identifier.
    Ok(unsafe { function(id, ece) })
}

/// `rdma_notify(3)` with the number of an `ibv_event_type`.
///
/// # Safety
/// The identifier exists.
pub(super) unsafe fn notify(id: *mut ffi::rdma_cm_id, event: u32) -> Result<c_int> {
    let function = Functions::loaded().notify.ok_or_else(|| missing("rdma_notify"))?;
    // SAFETY: the caller promises the identifier.
    Ok(unsafe { function(id, event) })
}

/// `rdma_reject_ece(3)`.
///
/// # Safety
/// The identifier exists.
pub(super) unsafe fn reject_ece(id: *mut ffi::rdma_cm_id, private_data: &[u8], length: u8) -> Result<c_int> {
    debug_assert!(usize::from(length) <= private_data.len());
    let function = Functions::loaded().reject_ece.ok_or_else(|| missing("rdma_reject_ece"))?;
    // SAFETY: the caller promises the identifier; the data is valid for the call.
    Ok(unsafe { function(id, private_data.as_ptr().cast(), length) })
}

/// `rdma_set_local_ece(3)`.
///
/// # Safety
/// The identifier exists and nobody else uses it.
pub(super) unsafe fn set_local_ece(id: *mut ffi::rdma_cm_id, ece: &mut ffi::ibv_ece) -> Result<c_int> {
    let function = Functions::loaded().set_local_ece.ok_or_else(|| missing("rdma_set_local_ece"))?;
    // SAFETY: the caller promises the identifier; the structure is valid for the call.
    Ok(unsafe { function(id, ece) })
}

impl Functions {
    fn loaded() -> &'static Self {
        static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
        FUNCTIONS.get_or_init(|| {
            // SAFETY: the name is a C string. The binding has opened the library, whose constructors have run.
            let library = unsafe { libc::dlopen(c"librdmacm.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
            let find = |name: &CStr| {
                if library.is_null() {
                    return std::ptr::null_mut();
                }
                // SAFETY: the library is open, and stays so: it is never closed.
                unsafe { libc::dlsym(library, name.as_ptr()) }
            };
            // For each: a null pointer is `None`, and the C function of that name has this signature (rdma/rdma_cma.h).
            Self {
                // SAFETY: as said above.
                get_remote_ece: unsafe { std::mem::transmute::<*mut c_void, Ece>(find(c"rdma_get_remote_ece")) },
                // SAFETY: as said above; a C enum of these values is an unsigned int.
                notify: unsafe { std::mem::transmute::<*mut c_void, Notify>(find(c"rdma_notify")) },
                // SAFETY: as said above.
                reject_ece: unsafe { std::mem::transmute::<*mut c_void, Reject>(find(c"rdma_reject_ece")) },
                // SAFETY: as said above.
                set_local_ece: unsafe { std::mem::transmute::<*mut c_void, Ece>(find(c"rdma_set_local_ece")) },
            }
        })
    }
}

fn missing(call: &'static str) -> Error {
    Error::returned(call, libc::EOPNOTSUPP).with_detail("the installed librdmacm does not have this function")
}
