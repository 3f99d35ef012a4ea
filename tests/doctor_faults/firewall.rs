//! Rules that refuse RoCE's port.

use crate::asking::{HERE, Undo, is_possible, own_device, shell};

#[test]
fn a_rule_that_drops_udp_port_4791() {
    if own_device().is_none() || !is_possible(&["nft", "list", "ruleset"]) {
        return;
    }
    let _undo = Undo("nft delete table inet zcmi_fault".to_owned());
    shell(
        "nft add table inet zcmi_fault; nft 'add chain inet zcmi_fault incoming { type filter hook input priority 0; }'; \
         nft 'add rule inet zcmi_fault incoming udp dport { 53, 4791 } drop'",
    );
    HERE.finds_and_mends("firewall", "a rule refuses UDP port 4791: udp dport { 53, 4791 } drop");
}
