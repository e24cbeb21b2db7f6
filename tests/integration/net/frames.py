"""Ethernet frames, made by hand: what a jail could send, honest and forged.

Owns: builders of frames as bytes.  A frame carries a word by which a test knows it again.
"""

from __future__ import annotations

import socket
from struct import pack

EVERYONE = "ff:ff:ff:ff:ff:ff"
IP, ARP, IP6, VLAN, PROVIDER_VLAN, LLDP = 0x0800, 0x0806, 0x86DD, 0x8100, 0x88A8, 0x88CC
UDP, ICMP, ICMP6 = 17, 1, 58


def mac_bytes(mac: str) -> bytes:
    """Return a MAC as it is sent."""
    return bytes.fromhex(mac.replace(":", ""))


def address_bytes(address: str) -> bytes:
    """Return an IP address as it is sent."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total = sum(
        int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2)
    )
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def ether(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """Return a frame."""
    return (mac_bytes(target) + mac_bytes(source) + pack(">H", kind) + payload).ljust(60, b"\0")


def ip(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """Return an IPv4 or IPv6 packet."""
    if ":" in source:
        head = pack(">IHBB", 0x60000000, len(payload), protocol, 255)
        return head + address_bytes(source) + address_bytes(target) + payload
    head = pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
    head += address_bytes(source) + address_bytes(target)
    return head[:10] + pack(">H", checksum(head)) + head[12:] + payload


def udp(source: int, target: int, payload: bytes) -> bytes:
    """Return a datagram without a checksum."""
    return pack(">HHHH", source, target, 8 + len(payload), 0) + payload


def icmp(kind: int, payload: bytes) -> bytes:
    """Return an ICMP message, of IPv4."""
    text = pack(">BBHI", kind, 0, 0, 0) + payload
    return text[:2] + pack(">H", checksum(text)) + text[4:]


def icmp6(source: str, target: str, kind: int, payload: bytes) -> bytes:
    """Return an ICMPv6 packet; ``payload`` follows after type, code and checksum."""
    text = pack(">BBH", kind, 0, 0) + payload
    pseudo = address_bytes(source) + address_bytes(target) + pack(">II", len(text), ICMP6)
    text = text[:2] + pack(">H", checksum(pseudo + text)) + text[4:]
    return ip(source, target, ICMP6, text)


def arp(
    operation: int,
    mac: str,
    address: str,
    target: str,
    word: bytes,
    kinds: tuple[int, int, int, int] = (1, IP, 6, 4),
) -> bytes:
    """Return an ARP message, which says where ``address`` is; ``kinds`` and lengths of both."""
    fixed = pack(">HHBBH", *kinds, operation)
    return fixed + mac_bytes(mac) + address_bytes(address) + bytes(6) + address_bytes(target) + word


def advertisement(address: str, mac: str, word: bytes) -> bytes:
    """Return the rest of a neighbour advertisement: flags, target, its MAC, an unknown option."""
    own_option = pack(">BB", 253, (len(word) + 9) // 8) + word
    own_option += bytes(-len(own_option) % 8)
    return pack(">I", 0x60000000) + address_bytes(address) + b"\2\1" + mac_bytes(mac) + own_option
