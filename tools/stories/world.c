#include "tools/stories/world.h"

static const struct word persons[] = {
    {"Anna", "f"},   {"Bella", "f"}, {"Clara", "f"},  {"Dora", "f"},   {"Ella", "f"},
    {"Freya", "f"},  {"Greta", "f"}, {"Hanna", "f"},  {"Ida", "f"},    {"Julia", "f"},
    {"Karin", "f"},  {"Lena", "f"},  {"Mara", "f"},   {"Nora", "f"},   {"Olga", "f"},
    {"Paula", "f"},  {"Rosa", "f"},  {"Sofia", "f"},  {"Tilda", "f"},  {"Vera", "f"},
    {"Wanda", "f"},  {"Alma", "f"},  {"Edith", "f"},  {"Irma", "f"},   {"Lucy", "f"},
    {"Molly", "f"},  {"Ruth", "f"},  {"Zoe", "f"},    {"Adam", "m"},   {"Ben", "m"},
    {"Carl", "m"},   {"David", "m"}, {"Emil", "m"},   {"Felix", "m"},  {"George", "m"},
    {"Hugo", "m"},   {"Ivan", "m"},  {"Jonas", "m"},  {"Kurt", "m"},   {"Leo", "m"},
    {"Max", "m"},    {"Nils", "m"},  {"Oscar", "m"},  {"Peter", "m"},  {"Ralph", "m"},
    {"Simon", "m"},  {"Tom", "m"},   {"Victor", "m"}, {"Walter", "m"}, {"Anton", "m"},
    {"Daniel", "m"}, {"Erik", "m"},  {"Frank", "m"},  {"Henry", "m"},  {"Martin", "m"},
    {"Samuel", "m"},
};

static const struct word places[] = {
    {"in the garden", "the garden"},
    {"at the market", "the market"},
    {"at the harbour", "the harbour"},
    {"in the forest", "the forest"},
    {"by the river", "the river"},
    {"on the bridge", "the bridge"},
    {"on the hill", "the hill"},
    {"in the meadow", "the meadow"},
    {"in the orchard", "the orchard"},
    {"in the square", "the square"},
    {"in the park", "the park"},
    {"on the beach", "the beach"},
    {"by the lake", "the lake"},
    {"by the well", "the well"},
    {"in the vineyard", "the vineyard"},
    {"at the station", "the station"},
    {"in the kitchen", "the kitchen"},
    {"in the library", "the library"},
    {"at the mill", "the mill"},
    {"in the bakery", "the bakery"},
    {"at the school", "the school"},
    {"in the barn", "the barn"},
    {"in the tower", "the tower"},
    {"in the workshop", "the workshop"},
    {"at the theatre", "the theatre"},
    {"in the museum", "the museum"},
    {"at the inn", "the inn"},
    {"at the lighthouse", "the lighthouse"},
    {"in the greenhouse", "the greenhouse"},
    {"in the stable", "the stable"},
    {"in the castle", "the castle"},
    {"at the post office", "the post office"},
};

static const struct word towns[] = {
    {"Millbrook", 0},   {"Ashford", 0},    {"Elmwood", 0},   {"Redhill", 0},   {"Seaview", 0},
    {"Stonebridge", 0}, {"Greenfield", 0}, {"Fairhaven", 0}, {"Northgate", 0}, {"Westbury", 0},
    {"Kingsport", 0},   {"Lakeside", 0},   {"Maplewood", 0}, {"Silverton", 0}, {"Rockford", 0},
    {"Windmere", 0},    {"Hartley", 0},    {"Clifton", 0},   {"Dunmore", 0},   {"Foxdale", 0},
};

static const struct word spots[] = {
    {"under the bed", 0},       {"behind the door", 0},     {"on the top shelf", 0},
    {"in the drawer", 0},       {"under the bench", 0},     {"in the big chest", 0},
    {"behind the curtain", 0},  {"on the windowsill", 0},   {"under the stairs", 0},
    {"beside the stove", 0},    {"in the cupboard", 0},     {"under the carpet", 0},
    {"behind the mirror", 0},   {"in the flower box", 0},   {"inside the piano", 0},
    {"under the table", 0},     {"in the wheelbarrow", 0},  {"under a pile of leaves", 0},
    {"behind the woodpile", 0}, {"in the hollow tree", 0},  {"next to the fireplace", 0},
    {"behind the barrels", 0},  {"in the laundry room", 0}, {"on the balcony", 0},
};

#define HARD "hard"
#define SOFT "soft"
static const struct word things[] = {
    {"bell", HARD},   {"key", HARD},     {"cup", HARD},       {"lamp", HARD},
    {"box", HARD},    {"whistle", HARD}, {"flute", HARD},     {"ring", HARD},
    {"spoon", HARD},  {"bowl", HARD},    {"bucket", HARD},    {"drum", HARD},
    {"clock", HARD},  {"comb", HARD},    {"button", HARD},    {"mirror", HARD},
    {"hammer", HARD}, {"compass", HARD}, {"toy boat", HARD},  {"puppet", HARD},
    {"vase", HARD},   {"tray", HARD},    {"telescope", HARD}, {"teapot", HARD},
    {"jug", HARD},    {"horn", HARD},    {"stool", HARD},     {"wheel", HARD},
    {"pipe", HARD},   {"plate", HARD},   {"necklace", HARD},  {"lantern", HARD},
    {"kettle", HARD}, {"ladle", HARD},   {"medal", HARD},     {"candlestick", HARD},
    {"scarf", SOFT},  {"hat", SOFT},     {"coat", SOFT},      {"blanket", SOFT},
    {"shirt", SOFT},  {"dress", SOFT},   {"bag", SOFT},       {"purse", SOFT},
    {"cap", SOFT},    {"ribbon", SOFT},  {"flag", SOFT},      {"pillow", SOFT},
    {"apron", SOFT},  {"belt", SOFT},    {"shawl", SOFT},     {"jacket", SOFT},
    {"cloak", SOFT},  {"kite", SOFT},    {"tent", SOFT},      {"umbrella", SOFT},
    {"rug", SOFT},    {"towel", SOFT},   {"doll", SOFT},      {"sack", SOFT},
};

#define COLOURS                                                                                    \
    {"red", 0}, {"blue", 0}, {"green", 0}, {"yellow", 0}, {"black", 0}, {"white", 0},              \
        {"brown", 0}, {"orange", 0}, {"purple", 0}, {"pink", 0}, {"grey", 0}, {                    \
        "golden", 0                                                                                \
    }
static const struct word looks[] = {
    COLOURS,       {"old", 0},   {"tiny", 0},   {"striped", 0}, {"spotted", 0},
    {"plain", 0},  {"huge", 0},  {"wooden", 0}, {"copper", 0},  {"silver", 0},
    {"tin", 0},    {"iron", 0},  {"brass", 0},  {"woollen", 0}, {"silk", 0},
    {"cotton", 0}, {"linen", 0}, {"velvet", 0}, {"leather", 0},
};
static const struct word colours[] = {COLOURS};

static const struct word coats[] = {
    {"black", 0},   {"white", 0},  {"brown", 0},   {"grey", 0},
    {"spotted", 0}, {"golden", 0}, {"striped", 0}, {"cream-coloured", 0},
};

static const struct word numbers[] = {
    {"one", 0},   {"two", 0},   {"three", 0}, {"four", 0}, {"five", 0},   {"six", 0},
    {"seven", 0}, {"eight", 0}, {"nine", 0},  {"ten", 0},  {"eleven", 0}, {"twelve", 0},
};

static const struct word days[] = {
    {"Monday", 0}, {"Tuesday", 0},  {"Wednesday", 0}, {"Thursday", 0},
    {"Friday", 0}, {"Saturday", 0}, {"Sunday", 0},
};

static const struct word weathers[] = {
    {"it was raining", "the paths were wet"},
    {"it was snowing", "the roofs were white"},
    {"a strong wind was blowing", "the shutters rattled"},
    {"there was thick fog", "nobody could see far"},
    {"the sun was shining", "the doors stood open"},
    {"it was freezing", "the puddles had turned to ice"},
    {"a storm was coming", "the birds were quiet"},
    {"it was very hot", "everyone looked for shade"},
    {"the sky was full of clouds", "the lamps were lit early"},
    {"there was a light breeze", "the flags were waving"},
};

static const struct word jobs[] = {
    {"baker", "baked bread and rolls"},
    {"farmer", "fed the cows and ploughed the fields"},
    {"teacher", "taught the children to read"},
    {"doctor", "looked after the sick"},
    {"gardener", "watered the flowers and cut the hedges"},
    {"painter", "painted doors and fences"},
    {"sailor", "sailed from port to port"},
    {"carpenter", "built tables and chairs"},
    {"librarian", "put books on their shelves"},
    {"tailor", "sewed coats and trousers"},
    {"fisher", "caught fish with a long net"},
    {"shepherd", "watched over the sheep"},
    {"cook", "made soup for hungry guests"},
    {"clockmaker", "repaired clocks and watches"},
    {"potter", "made bowls out of clay"},
    {"blacksmith", "made shoes for horses"},
    {"musician", "played the violin at weddings"},
    {"weaver", "wove cloth on a big loom"},
    {"miller", "ground wheat into flour"},
    {"beekeeper", "sold honey in jars"},
};

static const struct word foods[] = {
    {"apples", "apple"},       {"pears", "pear"},         {"plums", "plum"},
    {"eggs", "egg"},           {"walnuts", "walnut"},     {"carrots", "carrot"},
    {"cherries", "cherry"},    {"lemons", "lemon"},       {"onions", "onion"},
    {"mushrooms", "mushroom"}, {"potatoes", "potato"},    {"peaches", "peach"},
    {"figs", "fig"},           {"turnips", "turnip"},     {"tomatoes", "tomato"},
    {"oranges", "orange"},     {"buns", "bun"},           {"pumpkins", "pumpkin"},
    {"radishes", "radish"},    {"chestnuts", "chestnut"},
};

static const struct word animals[] = {
    {"cat", 0},    {"dog", 0},    {"rabbit", 0},  {"parrot", 0}, {"duck", 0},  {"turtle", 0},
    {"mouse", 0},  {"hen", 0},    {"hamster", 0}, {"kitten", 0}, {"puppy", 0}, {"hedgehog", 0},
    {"ferret", 0}, {"piglet", 0}, {"lamb", 0},    {"goat", 0},
};

static const struct word pet_names[] = {
    {"Biscuit", 0}, {"Pepper", 0}, {"Misty", 0},  {"Rusty", 0},  {"Socks", 0},
    {"Ginger", 0},  {"Bruno", 0},  {"Shadow", 0}, {"Pebble", 0}, {"Clover", 0},
    {"Pickle", 0},  {"Snowy", 0},  {"Domino", 0}, {"Tiger", 0},  {"Hazel", 0},
    {"Bramble", 0}, {"Poppy", 0},  {"Ziggy", 0},  {"Waffle", 0}, {"Comet", 0},
};

static const struct word relations[] = {
    {"mother", 0}, {"father", 0},      {"sister", 0},      {"brother", 0}, {"aunt", 0},
    {"uncle", 0},  {"grandmother", 0}, {"grandfather", 0}, {"cousin", 0},  {"neighbour", 0},
};

static const struct word travels[] = {
    {"by train", 0},   {"by boat", 0},   {"on foot", 0},      {"by coach", 0}, {"on a donkey", 0},
    {"by bicycle", 0}, {"in a cart", 0}, {"on horseback", 0}, {"by tram", 0},  {"in a balloon", 0},
};

static const struct word birds[] = {
    {"pigeons", 0},  {"sparrows", 0},  {"crows", 0},   {"gulls", 0},
    {"swallows", 0}, {"geese", 0},     {"magpies", 0}, {"owls", 0},
    {"robins", 0},   {"starlings", 0}, {"swans", 0},   {"herons", 0},
};

static const struct word smells[] = {
    {"fresh bread", 0}, {"wet grass", 0},  {"smoke", 0},     {"roses", 0},
    {"cinnamon", 0},    {"hay", 0},        {"salt", 0},      {"pine trees", 0},
    {"soap", 0},        {"fried fish", 0}, {"old books", 0}, {"coffee", 0},
    {"lavender", 0},    {"rain", 0},       {"honey", 0},     {"apple cake", 0},
};

static const struct word sounds[] = {
    {"a dog barked", 0},
    {"a door creaked", 0},
    {"a bell rang", 0},
    {"a cock crowed", 0},
    {"someone was singing", 0},
    {"a cart rolled by", 0},
    {"children were laughing", 0},
    {"a train whistled", 0},
    {"someone was chopping wood", 0},
    {"a baby cried", 0},
    {"bees were humming", 0},
    {"water was dripping", 0},
    {"a cow mooed", 0},
    {"someone played the flute", 0},
    {"a window slammed", 0},
    {"thunder rumbled", 0},
};

// The array of -1 elements stops the compiler at a list of more than LIST_MAX_WORDS.
#define COUNT(words) (sizeof words / sizeof words[0])
#define LIST(name, words)                                                                          \
    { name, words, COUNT(words) + 0 * sizeof(char[COUNT(words) <= LIST_MAX_WORDS ? 1 : -1]) }
const struct list world_lists[LIST_COUNT] = {
    [LIST_NONE] = {"", NULL, 0},
    [LIST_PERSON] = LIST("person", persons),
    [LIST_PLACE] = LIST("place", places),
    [LIST_TOWN] = LIST("town", towns),
    [LIST_SPOT] = LIST("spot", spots),
    [LIST_THING] = LIST("thing", things),
    [LIST_LOOK] = LIST("look", looks),
    [LIST_COLOUR] = LIST("colour", colours),
    [LIST_COAT] = LIST("coat", coats),
    [LIST_NUMBER] = LIST("number", numbers),
    [LIST_DAY] = LIST("day", days),
    [LIST_WEATHER] = LIST("weather", weathers),
    [LIST_JOB] = LIST("job", jobs),
    [LIST_FOOD] = LIST("food", foods),
    [LIST_ANIMAL] = LIST("animal", animals),
    [LIST_PET_NAME] = LIST("pet", pet_names),
    [LIST_RELATION] = LIST("relation", relations),
    [LIST_TRAVEL] = LIST("travel", travels),
    [LIST_BIRD] = LIST("bird", birds),
    [LIST_SMELL] = LIST("smell", smells),
    [LIST_SOUND] = LIST("sound", sounds),
};
