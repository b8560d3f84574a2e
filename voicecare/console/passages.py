"""Passages to read aloud for a voice clone. Each takes more than a minute, and has questions, numbers and feelings.

They are in the languages of the default phrases (tts migration 0006). Nothing in them is about a patient.
"""

from voicecare.core import languages

FALLBACK = "en"
PASSAGES = {
    "de": """
Heute Morgen bin ich früh aufgewacht, noch vor dem Wecker. Draußen war es still, nur ein Vogel sang im Apfelbaum. Ich
habe mir Tee gekocht und mich an das offene Fenster gesetzt. Weißt du noch, wie wir früher zusammen gefrühstückt
haben? Es gab frische Brötchen, Butter und die Marmelade von der Großmutter.

Später ging ich zum Markt. Der Händler hatte Birnen, Kürbisse und zwölf Sorten Käse. „Probieren Sie diesen!“, rief er,
und ich musste lachen. Er war so kräftig, dass mir die Augen tränten! Auf dem Rückweg traf ich die Nachbarin mit ihrem
jungen Hund. Er zog sie quer über die Straße, und sie konnte ihn kaum halten.

Am Nachmittag regnete es ein wenig. Da habe ich die alten Fotos aus der Schublade geholt. Auf einem stehen wir am
Meer, der Wind zerzaust uns die Haare, und alle lachen. Wie schön das war! Ich glaube, es war ein Donnerstag im Juli,
kurz nach halb fünf. Heute Abend koche ich eine Suppe, lese noch ein paar Seiten und gehe zeitig schlafen. Und morgen
erzählst du mir, wie dein Tag war, ja?
""",
    "en": """
This morning I woke up early, long before the alarm. It was quiet outside, and only one bird was singing in the apple
tree. I made a pot of tea and sat down at the open window. Do you remember how we used to have breakfast together?
There were fresh rolls, butter, and the jam that my grandmother made every summer.

Later I walked to the market. The man at the stall had pears, pumpkins, and twelve kinds of cheese. "You must try this
one!" he called, and I had to laugh. It was so strong that it brought tears to my eyes! On the way back I met our
neighbour with her young dog. He pulled her right across the street, and she could hardly hold him.

In the afternoon it rained a little, so I took the old photographs out of the drawer. In one of them we are standing
by the sea. The wind is blowing through our hair, and everybody is laughing. What a lovely day that was! I think it
was a Thursday in July, just after half past four. Tonight I will cook some soup, read a few pages, and go to bed in
good time. And tomorrow you can tell me about your day, will you?
""",
    "es": """
Esta mañana me desperté temprano, mucho antes de que sonara el despertador. Fuera todo estaba en silencio, y solo un
pájaro cantaba en el manzano. Preparé una tetera y me senté junto a la ventana abierta. ¿Te acuerdas de cuando
desayunábamos juntos? Había panecillos recién hechos, mantequilla y la mermelada que mi abuela hacía cada verano.

Más tarde fui andando al mercado. El vendedor tenía peras, calabazas y doce clases de queso. «¡Tiene que probar
este!», gritó, y no pude evitar reírme. ¡Era tan fuerte que se me saltaron las lágrimas! En el camino de vuelta me
encontré con la vecina y su perro, que aún es muy joven. Tiraba de ella por toda la calle, y apenas podía sujetarlo.

Por la tarde llovió un poco, así que saqué las fotos antiguas del cajón. En una de ellas estamos a la orilla del mar.
El viento nos despeina, y todos nos reímos. ¡Qué día tan bonito! Creo que era un jueves de julio, poco después de las
cuatro y media. Esta noche haré una sopa, leeré unas páginas y me acostaré pronto. Y mañana me cuentas cómo te ha ido
el día, ¿verdad?
""",
    "fr": """
Ce matin, je me suis réveillé tôt, bien avant la sonnerie. Dehors, tout était calme, et un seul oiseau chantait dans
le pommier. J'ai préparé du thé et je me suis installé devant la fenêtre ouverte. Te souviens-tu de nos petits
déjeuners ensemble ? Il y avait du pain frais, du beurre, et la confiture que ma grand-mère faisait chaque été.

Plus tard, je suis allé au marché à pied. Le marchand avait des poires, des citrouilles et douze sortes de fromages. «
Goûtez donc celui-ci ! » m'a-t-il lancé, et je n'ai pas pu m'empêcher de rire. Il était si fort que j'en avais les
larmes aux yeux ! Sur le chemin du retour, j'ai croisé la voisine avec son jeune chien. Il la tirait à travers toute
la rue, et elle avait bien du mal à le retenir.

L'après-midi, il a plu un peu. Alors j'ai sorti les vieilles photos du tiroir. Sur l'une d'elles, nous sommes au bord
de la mer. Le vent souffle dans nos cheveux, et tout le monde rit. Quelle belle journée c'était ! Je crois que c'était
un jeudi de juillet, juste après quatre heures et demie. Ce soir, je vais faire une soupe, lire quelques pages et me
coucher tôt. Et demain, tu me raconteras ta journée, d'accord ?
""",
    "it": """
Stamattina mi sono alzato presto, molto prima della sveglia. Fuori c'era silenzio, e solo un uccellino cantava sul
melo. Ho preparato una teiera di tè e mi sono seduto davanti alla finestra aperta. Ti ricordi quando facevamo
colazione insieme? C'erano i panini freschi, il burro, e la marmellata che mia nonna preparava ogni estate.

Più tardi sono andato al mercato a piedi. Il venditore aveva pere, zucche e dodici tipi di formaggio. «Deve assaggiare
questo!» ha gridato, e non ho potuto fare a meno di ridere. Era così forte che mi sono venute le lacrime agli occhi!
Al ritorno ho incontrato la vicina con il suo cane, che è ancora giovane. La trascinava da una parte all'altra della
strada, e lei riusciva a malapena a tenerlo.

Nel pomeriggio è piovuto un po', così ho tirato fuori dal cassetto le vecchie fotografie. In una siamo in riva al
mare. Il vento ci scompiglia i capelli, e tutti ridono. Che bella giornata è stata! Credo che fosse un giovedì di
luglio, poco dopo le quattro e mezza. Stasera cucinerò una zuppa, leggerò qualche pagina e andrò a letto presto. E
domani mi racconterai com'è andata la tua giornata, va bene?
""",
    "nl": """
Vanmorgen werd ik vroeg wakker, lang voor de wekker. Buiten was het stil, alleen een vogel zong in de appelboom. Ik
zette een pot thee en ging bij het open raam zitten. Weet je nog hoe we vroeger samen ontbeten? Er waren verse
broodjes, boter, en de jam die mijn grootmoeder elke zomer maakte.

Later liep ik naar de markt. De koopman had peren, pompoenen en twaalf soorten kaas. "Deze moet u proeven!" riep hij,
en ik moest lachen. Hij was zo sterk dat de tranen me in de ogen sprongen! Op de terugweg kwam ik de buurvrouw tegen
met haar jonge hond. Hij trok haar dwars over de straat, en ze kon hem nauwelijks houden.

's Middags regende het een beetje, dus haalde ik de oude foto's uit de la. Op een daarvan staan we aan zee. De wind
waait door onze haren, en iedereen lacht. Wat was dat een mooie dag! Ik geloof dat het een donderdag in juli was, net
na half vijf. Vanavond kook ik soep, lees ik nog een paar bladzijden en ga ik op tijd naar bed. En morgen vertel jij
me hoe jouw dag was, goed?
""",
    "pt": """
Esta manhã acordei cedo, muito antes do despertador. Lá fora estava tudo em silêncio, e só um passarinho cantava na
macieira. Fiz um bule de chá e sentei-me junto à janela aberta. Lembras-te de quando tomávamos juntos o
pequeno-almoço? Havia pão fresco, manteiga, e a compota que a minha avó fazia todos os verões.

Mais tarde fui a pé ao mercado. O vendedor tinha peras, abóboras e doze tipos de queijo. «Tem de provar este!», gritou
ele, e não pude deixar de rir. Era tão forte que me vieram as lágrimas aos olhos! No caminho de volta encontrei a
vizinha com o cão, que ainda é muito novo. Ele puxava por ela de um lado ao outro da rua, e ela mal o conseguia
segurar.

À tarde choveu um pouco, por isso tirei da gaveta as fotografias antigas. Numa delas estamos à beira-mar. O vento
despenteia-nos, e toda a gente se ri. Que dia tão bonito! Acho que era uma quinta-feira de julho, pouco depois das
quatro e meia. Hoje à noite vou fazer uma sopa, ler algumas páginas e deitar-me cedo. E amanhã contas-me como foi o
teu dia, está bem?
""",
}


def passage_for(tag: str) -> tuple[str, str]:
    """Returns the code of the language of the passage, and the passage, for the language tag of a patient.

    English if there is none in the language of the patient. Paragraphs are separated by an empty line.
    """
    code = languages.code_of(tag)
    language = code if code in PASSAGES else FALLBACK
    return language, PASSAGES[language].strip().replace("\n\n", "\0").replace("\n", " ").replace("\0", "\n\n")
