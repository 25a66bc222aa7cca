#include "text/byte_level.h"

#include <stdbool.h>

uint32_t byte_level_char(unsigned char byte) {
    bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    if (printable)
        return byte;
    // The others in byte order: 0x00-0x20, 0x7F-0xA0, 0xAD.
    return 0x100u + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7fu + 0x21u : 0x43u);
}
