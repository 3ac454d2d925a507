// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;

/// An upgradable proxy: every call runs the code that the implementation slot names, on the proxy's
/// own storage. The slot is that of EIP-1967. For tests only: anybody may upgrade it.
contract TestProxy {
    bytes32 private constant SLOT = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);

    constructor(address implementation) {
        _set(implementation);
    }

    function upgradeTo(address implementation) external {
        _set(implementation);
    }

    fallback() external payable {
        bytes32 slot = SLOT;
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), sload(slot), 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            switch done
            case 0 {
                revert(0, returndatasize())
            }
            default {
                return(0, returndatasize())
            }
        }
    }

    receive() external payable {}

    function _set(address implementation) private {
        bytes32 slot = SLOT;
        assembly {
            sstore(slot, implementation)
        }
    }
}
