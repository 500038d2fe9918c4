"""The words of the synthetic data set: few, so that a language model of a few layers can learn all of them."""

GENRES = {  # adjectives, nouns: no word in two genres
    "crime": ("Silent Cold Bloody Hidden Guilty Secret", "Murder Detective Witness Corpse Alibi Killer"),
    "fantasy": ("Enchanted Golden Ancient Magic Cursed Elven", "Dragon Wizard Sword Kingdom Throne Spell"),
    "romance": ("Tender Sweet Passionate Charming Loving Stolen", "Heart Kiss Bride Wedding Duke Desire"),
    "space": ("Distant Stellar Lunar Cosmic Orbital Alien", "Planet Starship Galaxy Robot Comet Colony"),
    "horror": ("Haunted Rotten Evil Screaming Dead Creeping", "Ghost Vampire Crypt Demon Nightmare Grave"),
    "cooking": ("Fresh Spicy Simple Italian Hearty Crispy", "Kitchen Recipe Bread Soup Garden Feast"),
    "history": ("Roman Royal Imperial Forgotten Colonial Medieval", "Empire War King Revolution Battle Senate"),
    "sports": ("Winning Final Fast Olympic Fearless Running", "Team Race Coach Goal Champion Season"),
}
TITLE_FORMS = ("{adjective} {noun}", "The {adjective} {noun}", "{noun} of the {other}")
FIRST_NAMES = "Anna Ben Carla David Emma Frank Grace Henry Ivy James Kate Louis Maria Nora Oscar Paula"
LAST_NAMES = "Adams Baker Clark Davis Evans Fisher Green Hall Irwin Jones King Lewis Moore Nash Owen Parker"
LOCATIONS = (
    "boston, massachusetts, usa",
    "seattle, washington, usa",
    "toronto, ontario, canada",
    "london, england, united kingdom",
    "berlin, berlin, germany",
    "madrid, madrid, spain",
    "sydney, new south wales, australia",
    "lyon, n/a, france",
)


def genre_titles(adjectives: str, nouns: str) -> list[str]:
    """All titles of two to four words that one genre's words give, sorted, distinct."""
    return sorted(
        {
            form.format(adjective=adjective, noun=noun, other=other)
            for form in TITLE_FORMS
            for adjective in adjectives.split()
            for noun in nouns.split()
            for other in nouns.split()
            if noun != other
        }
    )
