// The tiles of AMX, set up the one way that all products here use them.
enum { TILE = 16, TILE_BYTES = 1024 }; // rows of a tile; 16 of 64 bytes, whatever they hold

struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

// All eight tiles are 16 rows of 64 bytes. The barrier keeps the configuration in memory: gcc 12
// believes that the instruction reads less of it than it does.
static void configure_tiles(void) {
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = TILE;
    }
    __asm__ volatile("" : : "r"(&config) : "memory");
    _tile_loadconfig(&config);
}
