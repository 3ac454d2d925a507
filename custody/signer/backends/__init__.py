"""Where the signer's private keys are, behind one port.

`port.KeyBackend` is what the signer asks; `local.LocalKeys` derives keys from a seed in this
process's memory, `pkcs11.TokenKeys` leaves them inside a token that never gives them out. A backend
decides nothing about payments: it signs the hash that it is given.
"""
