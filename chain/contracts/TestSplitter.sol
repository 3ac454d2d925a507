// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// Passes ether on inside a transaction, and takes it back by reverting where it is told to.
/// What an exchange sees of a contract wallet, a splitter or a payroll. For tests only.
contract TestSplitter {
    error OnPurpose();
    error NotPaid(address to);

    receive() external payable {}

    /// Pays an equal part of what was sent to each.
    function split(address payable[] calldata to) external payable {
        for (uint256 i = 0; i < to.length; i++) _pay(to[i], msg.value / to.length);
    }

    /// Pays everybody, then reverts: nobody was paid, and the transaction failed.
    function splitAndRevert(address payable[] calldata to) external payable {
        for (uint256 i = 0; i < to.length; i++) _pay(to[i], msg.value / to.length);
        revert OnPurpose();
    }

    /// Pays *kept* for good, and *lost* inside a call that reverts and is forgiven: the transaction
    /// succeeds, and *lost* was never paid.
    function splitWithRevertedPart(address payable kept, address payable lost) external payable {
        _pay(kept, msg.value / 2);
        try this.payAndRevert{value: msg.value / 2}(lost) {} catch {}
    }

    function payAndRevert(address payable to) external payable {
        _pay(to, msg.value);
        revert OnPurpose();
    }

    /// Pays from inside a contract made for it, which destroys itself.
    function payByDestruction(address payable to) external payable {
        new Destroyed{value: msg.value}(to);
    }

    function _pay(address payable to, uint256 value) private {
        (bool paid, ) = to.call{value: value}("");
        if (!paid) revert NotPaid(to);
    }
}

/// Sends what it was made with to *heir*, and is gone.
contract Destroyed {
    constructor(address payable heir) payable {
        selfdestruct(heir);
    }
}
