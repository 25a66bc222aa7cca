// Byte-level BPE writes every byte as a printable character, so that vocabularies and merges are
// plain text: 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF stand for themselves, the other 68 for U+0100 …
// U+0143 in their order. (" " is "Ġ", U+0120.)
#ifndef NIBBLE_TEXT_BYTE_LEVEL_H
#define NIBBLE_TEXT_BYTE_LEVEL_H

#include <stdint.h>

enum { BYTE_LEVEL_END = 0x144 }; // one more than the last character

uint32_t byte_level_char(unsigned char byte);

#endif
